"""Alerts: what happened to each, which is added to and never changed; messages on their way; the last evaluations."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_PATH = "SET search_path = pg_catalog, pg_temp"
_REFUSE = f"""
CREATE FUNCTION public.alert_events_refuse_change() RETURNS trigger LANGUAGE plpgsql {_PATH} AS $$
BEGIN
    RAISE EXCEPTION 'alert_events is append-only: % is refused', TG_OP
        USING ERRCODE = 'integrity_constraint_violation', HINT = 'Add a row that corrects the earlier one.';
END $$
"""
# Time and login are the database's own. What is said of an alert is of one that was opened.
_JUDGE = f"""
CREATE FUNCTION public.alert_events_judge_row() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER {_PATH} AS $$
BEGIN
    NEW.recorded_at := clock_timestamp();
    NEW.database_user := session_user;
    IF NEW.what IN ('repeated', 'acknowledged', 'closed') AND NOT EXISTS (
        SELECT FROM public.alert_events e WHERE e.event_id = NEW.about AND e.what = 'opened'
            AND (e.use_case, e.rule, e.kind, e.key) = (NEW.use_case, NEW.rule, NEW.kind, NEW.key)) THEN
        RAISE EXCEPTION 'there is no opened alert % of %/%', NEW.about, NEW.use_case, NEW.rule
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$
"""
_FUNCTIONS = ("alert_events_judge_row()", "alert_events_refuse_change()")


def upgrade() -> None:
    """Apply."""
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "alert_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("event_id", sa.Text()),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("about", sa.Text()),
        sa.Column("use_case", sa.Text(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("rule_hash", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("at", moment, nullable=False),
        sa.Column("until", moment),
        sa.Column("sink", sa.Text()),
        sa.Column("message_id", sa.Text()),
        sa.Column("actor", sa.Text()),
        sa.Column("reason", sa.Text()),
        sa.Column("recorded_at", moment, nullable=False, server_default=sa.text("now()")),
        sa.Column("database_user", sa.Text(), nullable=False, server_default=sa.text("session_user")),
        sa.PrimaryKeyConstraint("id", name="pk_alert_events"),
        sa.UniqueConstraint("event_id", name="uq_alert_events_event_id"),
        sa.CheckConstraint(
            "what IN ('opened', 'repeated', 'acknowledged', 'silenced', 'closed', 'sent', 'failed', 'given up')",
            name=op.f("ck_alert_events_what"),
        ),
        sa.CheckConstraint("kind IN ('firing', 'error', 'no data', 'not run')", name=op.f("ck_alert_events_kind")),
        sa.CheckConstraint(
            "what NOT IN ('acknowledged', 'silenced') OR (actor <> '' AND reason <> '')",
            name=op.f("ck_alert_events_said"),
        ),
        sa.CheckConstraint("what <> 'silenced' OR until IS NOT NULL", name=op.f("ck_alert_events_until")),
        sa.CheckConstraint(
            "what NOT IN ('opened', 'repeated', 'closed') OR event_id IS NOT NULL", name=op.f("ck_alert_events_told")
        ),
        sa.CheckConstraint(
            "what NOT IN ('sent', 'failed', 'given up') OR (about IS NOT NULL AND sink IS NOT NULL)",
            name=op.f("ck_alert_events_sending"),
        ),
    )
    op.create_index("ix_alert_events_use_case_rule_id", "alert_events", ["use_case", "rule", "id"])
    op.create_index(
        "uq_alert_events_closed", "alert_events", ["about"], unique=True, postgresql_where=sa.text("what = 'closed'")
    )
    op.create_index("ix_alert_events_about", "alert_events", ["about"])
    op.create_index(
        "ix_alert_events_sink_at", "alert_events", ["sink", "at"],
        postgresql_where=sa.text("what = 'sent'"),
    )  # fmt: skip
    op.create_table(
        "alert_outbox",
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("sink", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("not_before", moment, nullable=False),
        sa.Column("message_id", sa.Text()),
        sa.Column("form", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("put_at", moment, nullable=False, server_default=sa.text("now()")),
        sa.PrimaryKeyConstraint("event_id", "sink", name="pk_alert_outbox"),
        sa.ForeignKeyConstraint(["event_id"], ["alert_events.event_id"], name="fk_alert_outbox_event_id_alert_events"),
        sa.CheckConstraint("state IN ('waiting', 'sent', 'given up')", name=op.f("ck_alert_outbox_state")),
        sa.CheckConstraint("form IN ('alert', 'digest', 'summary')", name=op.f("ck_alert_outbox_form")),
    )
    op.create_index(
        "ix_alert_outbox_sink_not_before", "alert_outbox", ["sink", "not_before"],
        postgresql_where=sa.text("state = 'waiting'"),
    )  # fmt: skip
    op.create_table(
        "alert_evaluations",
        sa.Column("use_case", sa.Text(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("rule_hash", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("found", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("evaluated_at", moment, nullable=False),
        sa.Column("deadline_at", moment, nullable=False),
        sa.Column("alerts", postgresql.JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("use_case", "rule", name="pk_alert_evaluations"),
        sa.CheckConstraint(
            "state IN ('ok', 'pending', 'firing', 'error', 'no data')", name=op.f("ck_alert_evaluations_state")
        ),
    )
    op.execute(_REFUSE)
    op.execute(_JUDGE)
    op.execute(
        "CREATE TRIGGER alert_events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON alert_events "
        "FOR EACH STATEMENT EXECUTE FUNCTION public.alert_events_refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER alert_events_judged BEFORE INSERT ON alert_events "
        "FOR EACH ROW EXECUTE FUNCTION public.alert_events_judge_row()"
    )
    for function in _FUNCTIONS:
        op.execute(f"REVOKE ALL ON FUNCTION public.{function} FROM PUBLIC")


def downgrade() -> None:
    """Take back."""
    for table in ("alert_outbox", "alert_evaluations", "alert_events"):
        op.drop_table(table)
    for function in _FUNCTIONS:
        op.execute(f"DROP FUNCTION public.{function}")
