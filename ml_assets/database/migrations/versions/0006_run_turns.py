"""One run of a use case at a time: a lock that those who write may take, and no other lock of the server."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# The session holds it until its connection is closed.
_HOLD = """
CREATE FUNCTION public.runs_hold(held_use_case text, waits boolean) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    key CONSTANT bigint := hashtextextended('ml_assets run of ' || held_use_case, 0);
BEGIN
    IF waits THEN
        PERFORM pg_advisory_lock(key);
        RETURN true;
    END IF;
    RETURN pg_try_advisory_lock(key);
END $$
"""


def upgrade() -> None:
    """Apply."""
    op.execute(_HOLD)
    op.execute("REVOKE ALL ON FUNCTION public.runs_hold(text, boolean) FROM PUBLIC")


def downgrade() -> None:
    """Take back."""
    op.execute("DROP FUNCTION public.runs_hold(text, boolean)")
