"""Migrations, forwards and back."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from ml_assets.database import downgrade, migrate, upsert_predictions
from ml_assets.database.connect import begin
from ml_assets.database.models import Base, is_declared
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
        assert inspect(connection).get_view_names() == ["work_list"]


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


def test_a_changed_view_is_made_anew(application_url: str) -> None:
    """Guards views against staying as an older version of their file made them."""
    with begin(application_url) as connection:
        connection.execute(text("COMMENT ON VIEW work_list IS 'sql/work_list.sql of last year'"))
    assert migrate(application_url)
    assert not migrate(application_url)


def test_processes_that_migrate_at_once_wait_for_one_another(database_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(migrate, [database_url] * 4)) == [False, False, False, True]
