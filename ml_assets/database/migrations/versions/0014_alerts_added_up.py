"""Reports go through the outbox of alerts; lost answers are told to the database; decisions and outcomes are added up.

The service only reads otherwise: it may call a function that adds how many were lost.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_PATH = "SET search_path = pg_catalog, pg_temp"
_CHECKS = {
    "alert_events": {
        "what": "what IN ('opened', 'repeated', 'acknowledged', 'silenced', 'closed', 'sent', 'failed', 'given up', "
        "'reported')",
        "kind": "kind IN ('firing', 'error', 'no data', 'not run', 'report')",
        "told": "what NOT IN ('opened', 'repeated', 'closed', 'reported') OR event_id IS NOT NULL",
        "files": "what <> 'reported' OR files IS NOT NULL",
    },
    "alert_outbox": {"form": "form IN ('alert', 'digest', 'summary', 'report')"},
}
_CHECKS_BEFORE = {
    "alert_events": {
        "what": "what IN ('opened', 'repeated', 'acknowledged', 'silenced', 'closed', 'sent', 'failed', 'given up')",
        "kind": "kind IN ('firing', 'error', 'no data', 'not run')",
        "told": "what NOT IN ('opened', 'repeated', 'closed') OR event_id IS NOT NULL",
    },
    "alert_outbox": {"form": "form IN ('alert', 'digest', 'summary')"},
}
_LOST = f"""
CREATE FUNCTION public.answers_lost(service text, topic text, why text, number bigint) RETURNS void
LANGUAGE sql SECURITY DEFINER {_PATH} AS $$
    INSERT INTO public.lost_answers (service, topic, why, number) VALUES (left(service, 200), topic, why, number)
$$
"""


# What is there already is added up once. Slices are not: PostgreSQL does not have them.
_ADD_UP_SCORINGS = """
UPDATE scorings SET (slot, decision_date, decisions, mean_probability) = (
    SELECT min(slot), min(decision_date), count(*), avg(probability::numeric)::double precision FROM predictions AS p
    WHERE (p.use_case, p.decision_time, p.mlflow_run_id)
        = (scorings.use_case, scorings.decision_time, scorings.mlflow_run_id))
"""
_ADD_UP_OUTCOMES = """
INSERT INTO outcome_counts (
    use_case, outcome_date, stage, dimension, value, decisions, labelled, fails, promised, cost, is_complete, known_at)
SELECT
    use_case, outcome_date, stage, 'all', 'all', count(*), count(label), coalesce(sum(label), 0),
    coalesce(sum(probability) FILTER (WHERE label IS NOT NULL), 0),
    coalesce(sum(cost_if_fail) FILTER (WHERE label = 1), 0), bool_and(is_complete),
    max(max(label_known_at)) OVER (PARTITION BY use_case, outcome_date)
FROM outcomes WHERE is_last GROUP BY use_case, outcome_date, stage
"""


def _replace(before: dict[str, dict[str, str]], after: dict[str, dict[str, str]]) -> None:
    for table, checks in before.items():
        for name in checks:
            op.drop_constraint(op.f(f"ck_{table}_{name}"), table)
    for table, checks in after.items():
        for name, condition in checks.items():
            op.create_check_constraint(op.f(f"ck_{table}_{name}"), table, condition)


def upgrade() -> None:
    """Apply."""
    op.add_column("alert_events", sa.Column("files", sa.Text()))
    _replace(_CHECKS_BEFORE, _CHECKS)
    op.create_table(
        "lost_answers",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_lost_answers"),
        sa.CheckConstraint("number > 0", name=op.f("ck_lost_answers_number")),
    )
    op.create_index("ix_lost_answers_recorded_at", "lost_answers", ["recorded_at"])
    op.execute(_LOST)
    for column in (
        sa.Column("slot", sa.Text()),
        sa.Column("decision_date", sa.Date()),
        sa.Column("decisions", sa.Integer()),
        sa.Column("mean_probability", sa.Double()),
    ):
        op.add_column("scorings", column)
    op.create_table(
        "outcome_counts",
        sa.Column("use_case", sa.Text(), nullable=False),
        sa.Column("outcome_date", sa.Date(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("dimension", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("decisions", sa.Integer(), nullable=False),
        sa.Column("labelled", sa.Integer(), nullable=False),
        sa.Column("fails", sa.Integer(), nullable=False),
        sa.Column("promised", sa.Double(), nullable=False),
        sa.Column("cost", sa.Double(), nullable=False),
        sa.Column("is_complete", sa.Boolean(), nullable=False),
        sa.Column("known_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("use_case", "outcome_date", "stage", "dimension", "value", name="pk_outcome_counts"),
    )
    op.execute(_ADD_UP_SCORINGS)
    op.execute(_ADD_UP_OUTCOMES)
    op.execute("REVOKE ALL ON FUNCTION public.answers_lost(text, text, text, bigint) FROM PUBLIC")


def downgrade() -> None:
    """Take back. Lines about reports are dropped."""
    op.execute("DROP FUNCTION public.answers_lost(text, text, text, bigint)")
    op.drop_table("lost_answers")
    op.drop_table("outcome_counts")
    for column in ("slot", "decision_date", "decisions", "mean_probability"):
        op.drop_column("scorings", column)
    op.execute("ALTER TABLE alert_events DISABLE TRIGGER alert_events_append_only")
    op.execute("DELETE FROM alert_outbox WHERE event_id IN (SELECT event_id FROM alert_events WHERE kind = 'report')")
    op.execute("DELETE FROM alert_events WHERE kind = 'report'")
    op.execute("ALTER TABLE alert_events ENABLE TRIGGER alert_events_append_only")
    _replace(_CHECKS, _CHECKS_BEFORE)
    op.drop_column("alert_events", "files")
