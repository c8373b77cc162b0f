"""Answers that the service loses are known to PostgreSQL, by a login that may write nothing else."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine, event, make_url, text

from ml_assets.answers import SERVED_SCORES
from ml_assets.database.connect import begin
from ml_assets.database.migrate import migrate
from ml_assets.database.roles import MIGRATE, SERVE, create_roles_sql
from ml_assets.landing.kafka import KafkaConnection
from ml_assets.serving.losses import LossesTold
from ml_assets.serving.recorder import Recorder
from ml_assets_tests.serving.answers import answer

NOBODY = KafkaConnection("localhost:1")


@pytest.fixture
def service(database_url: str) -> Iterator[Engine]:
    """An engine whose connections have the role of the scoring service."""
    with begin(database_url) as connection:
        connection.exec_driver_sql(create_roles_sql(str(make_url(database_url).database)))

    def of(role: str) -> Engine:
        engine = create_engine(make_url(database_url))
        event.listen(engine, "connect", lambda raw, _: raw.execute(f"SET ROLE {role}") and raw.commit())
        return engine

    owner, engine = of(MIGRATE), of(SERVE)
    migrate(owner)
    yield engine
    for one in (owner, engine):
        one.dispose()


def told(engine: Engine) -> list[tuple[str, str, str, int]]:
    query = text("SELECT service, topic, why, number FROM lost_answers ORDER BY id")
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(query)]


def lose(recorder: Recorder, number: int) -> None:
    for n in range(number):
        assert not recorder.record(SERVED_SCORES.topic, "E", answer(f"e-{n}"))


def test_what_is_lost_is_told_once_and_what_could_not_be_told_the_next_time(service: Engine) -> None:
    recorder = Recorder(NOBODY)  # not started: it takes nothing
    nowhere = create_engine("postgresql+psycopg://nobody@localhost:1/nothing")
    lose(recorder, 3)
    LossesTold(recorder, lambda: nowhere, service="pod-a")()
    lose(recorder, 2)
    tell = LossesTold(recorder, lambda: service, service="pod-a")
    tell()
    tell()
    assert told(service) == [("pod-a", SERVED_SCORES.topic, "shutdown", 5)]


def test_the_service_adds_losses_by_its_function_alone(service: Engine) -> None:
    with pytest.raises(Exception, match="permission denied"), service.begin() as connection:
        connection.execute(text("INSERT INTO lost_answers (service, topic, why, number) VALUES ('a', 'b', 'c', 1)"))
