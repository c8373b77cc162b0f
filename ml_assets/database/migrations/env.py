"""Alembic's entry: runs revisions on the connection that `ml_assets.database.migrate` passes in."""

from alembic import context

from ml_assets.database.models import Base, is_declared

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, include_name=is_declared
)
with context.begin_transaction():
    context.run_migrations()
