"""Past cases are found by their vectors, on a real server with pgvector and without."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import text

from ml_assets.database.connect import begin
from ml_assets.database.migrate import migrate
from ml_assets.database.models import PastCase
from ml_assets.database.monitoring import replace_dates, retire_outcomes
from ml_assets.database.predictions import upsert_predictions
from ml_assets.database.similar import (
    DIMENSIONS,
    case_space,
    count_cases,
    make_room,
    similar_cases,
    stored,
)
from ml_assets.errors import StateError
from ml_assets.local.embedded.postgres import EmbeddedPostgres
from ml_assets_tests.database.factories import prediction, predictions

DAY, NOW = date(2026, 1, 6), datetime(2026, 2, 1, tzinfo=UTC)
CASES = 3_000


def cases(vectors: np.ndarray, *, use_case: str = "fails", day: date = DAY, **changes: object) -> pa.Table:
    """One case for each vector (n, DIMENSIONS); each fifth failed."""
    rows = [
        {
            "use_case": use_case, "outcome_date": day, "entity_id": f"I{number}",
            "decision_time": datetime(2026, 1, 5, 7, tzinfo=UTC), "slot": "morning", "mlflow_run_id": "run-of-model-1",
            "model_version": 1, "probability": 0.2, "expected_cost": 1.0, "on_list": True, "control": False,
            "label": int(number % 5 == 0), "label_known_at": datetime.combine(day, datetime.min.time(), tzinfo=UTC),
            "space": "run-1", "vector": stored(vector),
        } | changes
        for number, vector in enumerate(vectors.tolist())
    ]  # fmt: skip
    return pa.Table.from_pylist(rows)


def drawn(rows: int, seed: int = 1) -> np.ndarray:
    made = np.zeros((rows, DIMENSIONS))
    made[:, :12] = np.random.default_rng(seed).normal(size=(rows, 12)).round(3)
    return made


def asked(url: str, vector: np.ndarray, **changes):
    wanted = {
        "slot": "morning", "entity_id": "new", "outcome_date": date(2026, 2, 2), "as_of": NOW, "limit": 10,
        "use_case": "fails", "space": "run-1",
    } | changes  # fmt: skip
    return similar_cases(url, wanted.pop("use_case"), wanted.pop("space"), vector.tolist(), **wanted)


@pytest.fixture(scope="module")
def filled(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """A database with past cases of one use case, and a few of another."""
    name = f"cases_{uuid4().hex[:8]}"
    postgres_server.create_databases(name)
    url = postgres_server.url(name)
    migrate(url)
    assert make_room(url, "fails")
    assert make_room(url, "other")
    replace_dates(url, PastCase, "fails", [DAY], cases(drawn(CASES)))
    replace_dates(url, PastCase, "other", [DAY], cases(drawn(20, 2), use_case="other", space="run-2"))
    yield url
    postgres_server.drop_database(name)


def test_the_nearest_by_the_index_are_those_by_hand(filled: str) -> None:
    with begin(filled) as connection:
        indexes = connection.execute(text("SELECT indexdef FROM pg_indexes WHERE tablename = 'past_cases_fails'"))
        assert any("hnsw" in definition for definition in indexes.scalars())
    vectors, found = drawn(CASES), 0
    for question in drawn(20, 3):
        distances = np.linalg.norm(vectors - question, axis=1)
        nearest = np.argsort(distances)[:10]
        answer = asked(filled, question)
        assert [case.distance for case in answer] == sorted(case.distance for case in answer)
        found += len({f"I{number}" for number in nearest} & {case.entity_id for case in answer})
        by_name = {f"I{number}": distance for number, distance in enumerate(distances)}
        assert all(case.distance == pytest.approx(by_name[case.entity_id], rel=0.01) for case in answer)
        assert all(case.label == int(int(case.entity_id[1:]) % 5 == 0) for case in answer)
    assert found >= 195, "of 200; the index is approximate"


def test_only_what_was_known_of_the_slot_and_space_counts(filled: str) -> None:
    vector = drawn(CASES)[7]
    assert asked(filled, vector)[0].entity_id == "I7"
    own = asked(filled, vector, entity_id="I7", outcome_date=DAY)
    assert "I7" not in {case.entity_id for case in own}
    assert len(own) == 10
    assert asked(filled, vector, entity_id="I7")[0].entity_id == "I7", "about another outcome date it is another case"
    known = datetime.combine(DAY, datetime.min.time(), tzinfo=UTC)
    assert len(asked(filled, vector, as_of=known)) == 10
    for change in (
        {"as_of": known - timedelta(microseconds=1)},
        {"slot": "evening"},
        {"space": "run-2"},
        {"use_case": "none"},
    ):
        assert asked(filled, vector, **change) == []
    others = asked(filled, vector, use_case="other", space="run-2", limit=50)
    assert len(others) == 20, "of a small use case all are found"


def test_few_that_pass_the_filter_are_found_though_they_are_far(filled: str) -> None:
    """Guards an index that gives up: pgvector looks at 20,000 candidates at most, and at first at a hundred."""
    day = date(2026, 1, 7)
    far = drawn(3, 9) + 50
    far[:, 12:] = 0
    replace_dates(filled, PastCase, "fails", [day], cases(far, day=day, slot="evening"))
    try:
        assert len(asked(filled, drawn(1)[0], slot="evening")) == 3
    finally:
        replace_dates(filled, PastCase, "fails", [day], empty())


def empty() -> pa.Table:
    return cases(drawn(1)).slice(0, 0)


def test_the_prediction_says_what_it_was_about_and_what_was_proposed(application_url: str) -> None:
    make_room(application_url, "fails")
    codes = '{"cause": "LACK", "action": "borrow", "contributions": {}}'
    upsert_predictions(application_url, predictions(prediction("I0", reason_codes=codes), prediction("I1")))
    vectors = drawn(4)
    rows = cases(vectors).to_pylist()
    rows[1] |= {"control": True}
    rows[2] |= {"on_list": False}
    replace_dates(application_url, PastCase, "fails", [DAY], pa.Table.from_pylist(rows))
    found = {case.entity_id: case for case in asked(application_url, vectors[0])}
    assert (found["I0"].action, found["I0"].handling) == ("borrow", "on the list")
    assert found["I0"].attributes["isin"] == "DE000A1EWWW0"
    assert (found["I1"].action, found["I1"].handling) == (None, "usual way")
    assert (found["I2"].handling, found["I3"].attributes) == ("not on the list", None), "past its retention"


def test_spaces_are_told_apart_and_old_cases_go_with_outcomes(application_url: str) -> None:
    assert case_space(application_url, "fails") is None
    make_room(application_url, "fails")
    later = date(2026, 2, 2)
    replace_dates(application_url, PastCase, "fails", [DAY], cases(drawn(3)))
    replace_dates(application_url, PastCase, "fails", [later], cases(drawn(2), day=later, space="run-9"))
    assert case_space(application_url, "fails") == "run-9"
    assert count_cases(application_url, "fails") == {"run-1": 3, "run-9": 2}
    retire_outcomes(application_url, months=1, now=datetime(2026, 3, 15, tzinfo=UTC))
    assert count_cases(application_url, "fails") == {"run-9": 2}


def test_without_pgvector_cases_are_kept_and_a_search_says_what_to_do(database_url: str) -> None:
    """Guards a bank whose server has no pgvector yet; the index comes by itself once it has."""
    migrate(database_url)
    with begin(database_url) as connection:
        connection.execute(text("DROP EXTENSION vector CASCADE"))
    assert make_room(database_url, "fails") is False
    replace_dates(database_url, PastCase, "fails", [DAY], cases(drawn(3)))
    with pytest.raises(StateError, match="pgvector, which this database does not have; an administrator"):
        asked(database_url, drawn(1)[0])
    with begin(database_url) as connection:
        connection.execute(text("CREATE EXTENSION vector"))
    assert len(asked(database_url, drawn(1)[0])) == 3, "without an index too"
    assert make_room(database_url, "fails") is True
    assert len(asked(database_url, drawn(1)[0])) == 3


def test_a_vector_of_another_length_is_refused(application_url: str) -> None:
    with pytest.raises(ValueError, match="has 64 numbers, not 2"):
        asked(application_url, np.zeros(2))
