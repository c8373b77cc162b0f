"""Past cases: decisions with a known outcome, by the vectors of which similar ones are found."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

# Where whoever migrates may not install it, an administrator does (`ml-assets roles-sql`); cases are kept meanwhile.
_EXTENSION = """
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector') THEN
        CREATE EXTENSION IF NOT EXISTS vector SCHEMA public;
    END IF;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'an administrator has to create the extension vector';
END $$
"""
# Those who write cases own no table: see revision 0003. A partition gets its index as soon as pgvector is there; from
# 0.8 on a search goes on until it has found enough rows that pass its filter.
_MAKE_USE_CASE = """
CREATE FUNCTION past_cases_make_use_case(name text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    cases text := 'past_cases_' || left(name, 40);
    vectors text := cases || '_vectors';
BEGIN
    IF to_regclass(quote_ident(cases)) IS NULL THEN
        -- Two that begin a use case at once do it one after the other.
        PERFORM pg_advisory_xact_lock(hashtext('past_cases_make_use_case'));
        EXECUTE format('CREATE TABLE IF NOT EXISTS %I PARTITION OF past_cases FOR VALUES IN (%L)', cases, name);
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_extension
        WHERE extname = 'vector' AND regexp_match(extversion, '^([0-9]+)[.]([0-9]+)')::integer[] >= ARRAY[0, 8]
    ) THEN
        RETURN false;
    END IF;
    IF to_regclass(quote_ident(vectors)) IS NULL THEN
        EXECUTE format(
            'CREATE INDEX IF NOT EXISTS %I ON %I USING hnsw ((vector::halfvec(64)) halfvec_l2_ops)', vectors, cases);
    END IF;
    RETURN true;
END $$
"""


def upgrade() -> None:
    """Apply."""
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "past_cases",
        sa.Column("use_case", sa.Text(), nullable=False),
        sa.Column("outcome_date", sa.Date(), nullable=False),
        sa.Column("entity_id", sa.Text(), nullable=False),
        sa.Column("decision_time", moment, nullable=False),
        sa.Column("slot", sa.Text(), nullable=False),
        sa.Column("mlflow_run_id", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Integer(), nullable=False),
        sa.Column("probability", sa.Double(), nullable=False),
        sa.Column("expected_cost", sa.Double(), nullable=False),
        sa.Column("on_list", sa.Boolean(), nullable=False),
        sa.Column("control", sa.Boolean(), nullable=True),
        sa.Column("label", sa.SmallInteger(), nullable=False),
        sa.Column("label_known_at", moment, nullable=False),
        sa.Column("space", sa.Text(), nullable=False),
        sa.Column("vector", postgresql.ARRAY(postgresql.REAL()), nullable=False),
        sa.PrimaryKeyConstraint("use_case", "outcome_date", "entity_id", "decision_time", name="pk_past_cases"),
        postgresql_partition_by="LIST (use_case)",
    )
    op.execute(_EXTENSION)
    op.execute(_MAKE_USE_CASE)
    op.execute("REVOKE EXECUTE ON FUNCTION past_cases_make_use_case(text) FROM PUBLIC")


def downgrade() -> None:
    """Take back. The extension stays: it may be another's too."""
    op.execute("DROP FUNCTION past_cases_make_use_case(text)")
    op.drop_table("past_cases")
