"""Reports go through the outbox of alerts, and answers that the scoring service lost are told to the database.

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
    op.execute("REVOKE ALL ON FUNCTION public.answers_lost(text, text, text, bigint) FROM PUBLIC")


def downgrade() -> None:
    """Take back. Lines about reports are dropped."""
    op.execute("DROP FUNCTION public.answers_lost(text, text, text, bigint)")
    op.drop_table("lost_answers")
    op.execute("ALTER TABLE alert_events DISABLE TRIGGER alert_events_append_only")
    op.execute("DELETE FROM alert_outbox WHERE event_id IN (SELECT event_id FROM alert_events WHERE kind = 'report')")
    op.execute("DELETE FROM alert_events WHERE kind = 'report'")
    op.execute("ALTER TABLE alert_events ENABLE TRIGGER alert_events_append_only")
    _replace(_CHECKS, _CHECKS_BEFORE)
    op.drop_column("alert_events", "files")
