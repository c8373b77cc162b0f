"""Migrations, forwards and back."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from ml_assets.database.connect import begin
from ml_assets.database.migrate import _config, downgrade, migrate
from ml_assets.database.models import Base, is_declared
from ml_assets.database.newest import is_newest, newest_revision
from ml_assets.database.predictions import upsert_predictions
from ml_assets.database.promotions import Action, Actor, ModelIdentity, declare_tiers, record, writing
from ml_assets_tests.database.factories import prediction, predictions


def test_migrating_again_does_nothing(database_url: str) -> None:
    assert migrate(database_url)
    assert not migrate(database_url)


def test_models_and_migrations_agree(application_url: str) -> None:
    """Guards against a column added to a model without a revision, or the other way round."""
    upsert_predictions(application_url, predictions(prediction("A")))  # a month's table is no difference
    with begin(application_url) as connection:
        options = {"compare_server_default": True, "include_name": is_declared}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []


def test_downgrade_leaves_nothing_and_upgrade_brings_it_back(application_url: str) -> None:
    downgrade(application_url, "base")
    with begin(application_url) as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]
        assert inspect(connection).get_view_names() == []
    assert migrate(application_url)
    with begin(application_url) as connection:
        assert sorted(inspect(connection).get_view_names()) == ["acted_on", "work_list"]


def test_predictions_stay_when_they_are_put_into_months_and_back(database_url: str) -> None:
    """Guards the rows of a bank that migrates: one in each of two years, seen through the work-list's key."""
    migrate(database_url)
    rows = [prediction("A"), prediction("B", decision_time=datetime(2024, 12, 31, 23, 30, tzinfo=UTC))]
    upsert_predictions(database_url, predictions(*rows))
    stored = "SELECT entity_id, decision_time, probability FROM predictions ORDER BY entity_id"
    with begin(database_url) as connection:
        before = connection.execute(text(stored)).all()
    for back in (True, False):
        downgrade(database_url, "0002") if back else migrate(database_url)
        with begin(database_url) as connection:
            assert connection.execute(text(stored)).all() == before
            tables = inspect(connection).get_table_names()
        assert [name for name in sorted(tables) if name.startswith("predictions_")] == (
            [] if back else ["predictions_2024_12", "predictions_2026_01"]
        )
    assert upsert_predictions(database_url, predictions(*rows)).unchanged == 2


def test_models_of_one_version_number_stay_apart_and_are_put_together_on_the_way_back(database_url: str) -> None:
    """Guards the rows of a bank that migrates to runs as identity and back, on predictions of two months."""
    february = datetime(2026, 2, 2, 7, tzinfo=UTC)
    migrate(database_url)
    old = [prediction("A", 0.1), prediction("B", 0.2), prediction("A", 0.3, decision_time=february)]
    upsert_predictions(database_url, predictions(*old))
    downgrade(database_url, "0004")
    speaking = "SELECT entity_id, decision_time, probability, mlflow_run_id FROM predictions JOIN scorings "
    speaking += "USING (use_case, decision_time, {}) ORDER BY decision_time, entity_id"
    with begin(database_url) as connection:
        before = connection.execute(text(speaking.format("model_version"))).all()
        assert len(before) == 3
        # As revision 0004 wrote them: a scoring whose predictions are gone, and a run that had two version numbers.
        connection.execute(text("INSERT INTO scorings VALUES ('gone', now(), 1)"))
        connection.execute(
            text(
                "INSERT INTO predictions SELECT (jsonb_populate_record(predictions, '{\"model_version\": 7}')).* "
                "FROM predictions WHERE entity_id = 'B'"
            )
        )
    assert migrate(database_url)
    with begin(database_url) as connection:
        assert connection.execute(text(speaking.format("mlflow_run_id"))).all() == before
        assert connection.execute(text("SELECT count(*), count(decides) FROM scorings")).one() == (2, 0)
        assert connection.execute(text("SELECT count(*) FROM predictions")).scalar() == 3, "the version that speaks"
    assert upsert_predictions(database_url, predictions(*old)).unchanged == 3
    anew = prediction("A", 0.9, mlflow_run_id="run-of-the-new-model-1")
    assert upsert_predictions(database_url, predictions(anew)).inserted == 1
    downgrade(database_url, "0004")
    with begin(database_url) as connection:
        found = connection.execute(text("SELECT entity_id, probability FROM predictions ORDER BY probability")).all()
    # A of the new model speaks and stays; B is of the old one alone.
    assert [tuple(row) for row in found] == [("B", 0.2), ("A", 0.3), ("A", 0.9)]
    assert migrate(database_url)


def test_lines_about_canaries_are_dropped_on_the_way_back(application_url: str) -> None:
    """Guards the ledger of a bank that migrates back: the older code knows no canary, and a request would be one."""
    declare_tiers(application_url, {"fails": "high"})

    def add(action: Action, version: int, *, actor: str = "ann", **said: Any) -> int:
        model = ModelIdentity(version, f"run{version}", "a" * 64, "e" * 64)
        with writing(application_url, "fails") as ledger:
            return record(ledger, "fails", action, model=model, actor=Actor.person(actor), reason="x", **said).id

    for version in (1, 2):
        add("registered", version)
    add("promoted", 1, actor="bob", request_id=add("requested", 1))
    add("canary", 2, actor="bob", share=0.1, request_id=add("requested", 2, share=0.1))
    add("canary_ended", 2)
    downgrade(application_url, "0007")
    with begin(application_url) as connection:
        actions = connection.execute(text("SELECT action FROM promotions ORDER BY id")).scalars().all()
    assert actions == ["registered", "registered", "requested", "promoted"]
    assert migrate(application_url)
    assert add("requested", 2)


def test_a_changed_view_is_made_anew(application_url: str) -> None:
    """Guards views against staying as an older version of their file made them."""
    with begin(application_url) as connection:
        connection.execute(text("COMMENT ON VIEW work_list IS 'sql/work_list.sql of last year'"))
    assert migrate(application_url)
    assert not migrate(application_url)


def test_processes_that_migrate_at_once_wait_for_one_another(database_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(migrate, [database_url] * 4)) == [False, False, False, True]


def test_the_newest_revision_is_told_without_alembic(database_url: str) -> None:
    """Guards a revision whose file is not named by it: every connect would migrate, or none would."""
    assert newest_revision() == ScriptDirectory.from_config(_config()).get_current_head()
    assert not is_newest(database_url)
    migrate(database_url)
    assert is_newest(database_url)
    with begin(database_url) as connection:
        connection.exec_driver_sql("COMMENT ON VIEW work_list IS 'another'")
    assert not is_newest(database_url)
    migrate(database_url)
    downgrade(database_url, "0002")
    assert not is_newest(database_url)
