"""Predictions by month of their decision time (UTC), so that what is past its retention is dropped and not deleted."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_INDEX = "ix_predictions_use_case_outcome_date_entity_id_decision_time"
_KEY = "use_case, decision_time, model_version, entity_id"
# Those who write predictions own no table, so both functions act with the rights of whoever migrated, on a path that
# nobody else can put objects into.
_MAKE_MONTH = """
CREATE FUNCTION predictions_make_month(moment timestamptz) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    month timestamptz := date_trunc('month', moment);
    name text := 'predictions_' || to_char(month, 'YYYY_MM');
BEGIN
    IF to_regclass(name) IS NULL THEN
        -- Two that begin a month at once do it one after the other.
        PERFORM pg_advisory_xact_lock(hashtext('predictions_make_month'));
        EXECUTE format(
            'CREATE TABLE IF NOT EXISTS %I PARTITION OF predictions FOR VALUES FROM (%L) TO (%L)',
            name, month, month + interval '1 month');
    END IF;
END $$
"""
_DROP_MONTHS = """
CREATE FUNCTION predictions_drop_months(before timestamptz) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    first timestamptz := date_trunc('month', before);
    name text;
BEGIN
    FOR name IN
        SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        WHERE inhparent = 'predictions'::regclass AND relname < 'predictions_' || to_char(first, 'YYYY_MM')
        ORDER BY relname
    LOOP
        EXECUTE format('DROP TABLE %I', name);
        RETURN NEXT name;
    END LOOP;
    DELETE FROM scorings WHERE decision_time < first;
END $$
"""


def upgrade() -> None:
    """Apply. Rows are copied: for their length nobody writes predictions."""
    op.execute("ALTER TABLE predictions RENAME TO predictions_whole")
    op.execute("ALTER INDEX pk_predictions RENAME TO pk_predictions_whole")
    op.execute(f"ALTER INDEX {_INDEX} RENAME TO ix_predictions_whole")
    op.execute("CREATE TABLE predictions (LIKE predictions_whole) PARTITION BY RANGE (decision_time)")
    _finish()
    op.execute(_MAKE_MONTH)
    op.execute(_DROP_MONTHS)
    for function in ("predictions_make_month", "predictions_drop_months"):
        op.execute(f"REVOKE EXECUTE ON FUNCTION {function}(timestamptz) FROM PUBLIC")
    op.execute(
        "SELECT predictions_make_month(month) FROM "
        "(SELECT DISTINCT date_trunc('month', decision_time, 'UTC') AS month FROM predictions_whole) AS months"
    )
    op.execute("INSERT INTO predictions SELECT * FROM predictions_whole")
    op.execute("DROP TABLE predictions_whole")


def downgrade() -> None:
    """Take back."""
    op.execute("DROP FUNCTION predictions_make_month(timestamptz)")
    op.execute("DROP FUNCTION predictions_drop_months(timestamptz)")
    op.execute("ALTER TABLE predictions RENAME TO predictions_by_month")
    op.execute("ALTER INDEX pk_predictions RENAME TO pk_predictions_by_month")
    op.execute(f"ALTER INDEX {_INDEX} RENAME TO ix_predictions_by_month")
    op.execute("CREATE TABLE predictions (LIKE predictions_by_month)")
    _finish()
    op.execute("INSERT INTO predictions SELECT * FROM predictions_by_month")
    op.execute("DROP TABLE predictions_by_month")


def _finish() -> None:
    op.execute(f"ALTER TABLE predictions ADD CONSTRAINT pk_predictions PRIMARY KEY ({_KEY})")
    op.execute(f"CREATE INDEX {_INDEX} ON predictions (use_case, outcome_date, entity_id, decision_time)")
