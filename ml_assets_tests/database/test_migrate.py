"""Migrations, forwards and back."""

from concurrent.futures import ThreadPoolExecutor

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from ml_assets.database import downgrade, migrate
from ml_assets.database.connect import begin
from ml_assets.database.models import Base


def test_migrating_again_does_nothing(database_url: str) -> None:
    assert migrate(database_url)
    assert not migrate(database_url)


def test_models_and_migrations_agree(application_url: str) -> None:
    """Guards against a column added to a model without a revision, or the other way round."""
    with begin(application_url) as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


def test_downgrade_leaves_nothing_and_upgrade_brings_it_back(application_url: str) -> None:
    downgrade(application_url, "base")
    with begin(application_url) as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]
        assert inspect(connection).get_view_names() == []
    assert migrate(application_url)
    with begin(application_url) as connection:
        assert inspect(connection).get_view_names() == ["work_list"]


def test_a_changed_view_is_made_anew(application_url: str) -> None:
    """Guards views against staying as an older version of their file made them."""
    with begin(application_url) as connection:
        connection.execute(text("COMMENT ON VIEW work_list IS 'sql/work_list.sql of last year'"))
    assert migrate(application_url)
    assert not migrate(application_url)


def test_processes_that_migrate_at_once_wait_for_one_another(database_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(migrate, [database_url] * 4)) == [False, False, False, True]
