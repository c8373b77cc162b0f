"""Feedback: what analysts said about rows of work-lists, which is added to and never changed."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_PATH = "SET search_path = pg_catalog, pg_temp"
_REFUSE = f"""
CREATE FUNCTION public.feedback_refuse_change() RETURNS trigger LANGUAGE plpgsql {_PATH} AS $$
BEGIN
    RAISE EXCEPTION 'feedback is append-only: % is refused', TG_OP
        USING ERRCODE = 'integrity_constraint_violation', HINT = 'Add a row that takes the earlier one back.';
END $$
"""
# Time and login are the database's own, and what is taken back is of the same row and person.
_JUDGE = f"""
CREATE FUNCTION public.feedback_judge_row() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER {_PATH} AS $$
BEGIN
    NEW.recorded_at := clock_timestamp();
    NEW.database_user := session_user;
    IF NEW.undoes IS NOT NULL AND NOT EXISTS (
        SELECT FROM public.feedback f WHERE f.id = NEW.undoes AND f.what <> 'undone'
            AND (f.use_case, f.outcome_date, f.entity_id, f.actor)
                = (NEW.use_case, NEW.outcome_date, NEW.entity_id, NEW.actor)) THEN
        RAISE EXCEPTION 'line % is none of % about %', NEW.undoes, NEW.actor, NEW.entity_id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$
"""
# One writer of a list at a time, so that each sees what the other has said.
_HOLD = f"""
CREATE FUNCTION public.feedback_hold(use_case text, outcome_date date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER {_PATH} AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('ml_assets feedback ' || use_case || ' ' || outcome_date, 0));
END $$
"""
_FUNCTIONS = ("feedback_hold(text, date)", "feedback_judge_row()", "feedback_refuse_change()")


def upgrade() -> None:
    """Apply."""
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "feedback",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("use_case", sa.Text(), nullable=False),
        sa.Column("outcome_date", sa.Date(), nullable=False),
        sa.Column("entity_id", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("value", sa.Text()),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("undoes", sa.BigInteger()),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("at", moment, nullable=False),
        sa.Column("until", moment),
        sa.Column("request_key", sa.Text(), nullable=False),
        sa.Column("decision_time", moment, nullable=False),
        sa.Column("shown_priority", sa.Integer(), nullable=False),
        sa.Column("shown_probability", sa.Double()),
        sa.Column("shown_expected_cost", sa.Double()),
        sa.Column("shown_cause", sa.Text()),
        sa.Column("model_version", sa.Integer(), nullable=False),
        sa.Column("mlflow_run_id", sa.Text(), nullable=False),
        sa.Column("cut_off_at", moment, nullable=False),
        sa.Column("recorded_at", moment, nullable=False, server_default=sa.text("now()")),
        sa.Column("database_user", sa.Text(), nullable=False, server_default=sa.text("session_user")),
        sa.PrimaryKeyConstraint("id", name="pk_feedback"),
        sa.ForeignKeyConstraint(["undoes"], ["feedback.id"], name="fk_feedback_undoes_feedback"),
        sa.UniqueConstraint("undoes", name="uq_feedback_undoes"),
        sa.UniqueConstraint(
            "use_case",
            "outcome_date",
            "entity_id",
            "request_key",
            name="uq_feedback_use_case_outcome_date_entity_id_request_key",
        ),
        sa.CheckConstraint(
            "what IN ('claimed', 'released', 'acted', 'resulted', 'judged', 'noted', 'undone')",
            name=op.f("ck_feedback_what"),
        ),
        sa.CheckConstraint("actor <> '' AND request_key <> ''", name=op.f("ck_feedback_said")),
        sa.CheckConstraint("(what = 'undone') = (undoes IS NOT NULL)", name=op.f("ck_feedback_undone")),
        sa.CheckConstraint("(what = 'claimed') = (until IS NOT NULL)", name=op.f("ck_feedback_until")),
        sa.CheckConstraint(
            "what NOT IN ('acted', 'resulted', 'judged') OR value IS NOT NULL", name=op.f("ck_feedback_value")
        ),
    )
    op.create_index("ix_feedback_use_case_outcome_date_id", "feedback", ["use_case", "outcome_date", "id"])
    for function in (_REFUSE, _JUDGE, _HOLD):
        op.execute(function)
    op.execute(
        "CREATE TRIGGER feedback_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON feedback "
        "FOR EACH STATEMENT EXECUTE FUNCTION public.feedback_refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER feedback_judged BEFORE INSERT ON feedback "
        "FOR EACH ROW EXECUTE FUNCTION public.feedback_judge_row()"
    )
    for function in _FUNCTIONS:
        op.execute(f"REVOKE ALL ON FUNCTION public.{function} FROM PUBLIC")


def downgrade() -> None:
    """Take back."""
    op.drop_table("feedback")
    for function in _FUNCTIONS:
        op.execute(f"DROP FUNCTION public.{function}")
