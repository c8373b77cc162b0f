"""The promotion ledger: who made which version champion, on what evidence. Rows are added and never changed."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_REFUSE = """
CREATE FUNCTION promotions_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'promotions is append-only: % is refused', TG_OP
        USING ERRCODE = 'integrity_constraint_violation', HINT = 'Add a row that corrects the earlier one.';
END $$
"""
# Time and login are the database's own, whatever the client says. An answer belongs to an open request of the same
# version, and comes from another person than the request.
_JUDGE = """
CREATE FUNCTION promotions_judge_row() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    asked promotions%ROWTYPE;
BEGIN
    NEW.recorded_at := clock_timestamp();
    NEW.database_user := session_user;
    IF NEW.request_id IS NOT NULL THEN
        SELECT * INTO asked FROM promotions WHERE id = NEW.request_id;
        IF asked.id IS NULL OR asked.action <> 'requested'
            OR (asked.use_case, asked.to_version) <> (NEW.use_case, NEW.to_version) THEN
            RAISE EXCEPTION 'row % is no request to promote version % of %',
                NEW.request_id, NEW.to_version, NEW.use_case USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        IF asked.actor = NEW.actor AND NEW.action = 'promoted' THEN
            RAISE EXCEPTION '% has requested this promotion: another person approves it', NEW.actor
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
    END IF;
    RETURN NEW;
END $$
"""


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "promotions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("use_case", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("from_version", sa.Integer()),
        sa.Column("to_version", sa.Integer(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("is_person", sa.Boolean(), nullable=False),
        sa.Column("needs_approval", sa.Boolean(), nullable=False),
        sa.Column("request_id", sa.BigInteger()),
        sa.Column("evidence_hash", sa.Text()),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.Column("database_user", sa.Text(), nullable=False, server_default=sa.text("session_user")),
        sa.PrimaryKeyConstraint("id", name="pk_promotions"),
        sa.ForeignKeyConstraint(["request_id"], ["promotions.id"], name="fk_promotions_request_id_promotions"),
        sa.UniqueConstraint("request_id", name="uq_promotions_request_id"),
        sa.CheckConstraint(
            "action IN ('requested', 'declined', 'promoted', 'rolled_back', 'restored')",
            name=op.f("ck_promotions_action"),
        ),
        sa.CheckConstraint(
            "action <> 'promoted' OR NOT needs_approval OR (request_id IS NOT NULL AND is_person)",
            name=op.f("ck_promotions_approved"),
        ),
        sa.CheckConstraint("actor <> '' AND reason <> ''", name=op.f("ck_promotions_said")),
        sa.CheckConstraint(
            "action NOT IN ('requested', 'promoted') OR evidence_hash IS NOT NULL", name=op.f("ck_promotions_evidence")
        ),
    )
    op.create_index("ix_promotions_use_case_id", "promotions", ["use_case", "id"])
    op.execute(_REFUSE)
    op.execute(_JUDGE)
    op.execute(
        "CREATE TRIGGER promotions_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON promotions "
        "FOR EACH STATEMENT EXECUTE FUNCTION promotions_refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER promotions_judged BEFORE INSERT ON promotions "
        "FOR EACH ROW EXECUTE FUNCTION promotions_judge_row()"
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("promotions")
    op.execute("DROP FUNCTION promotions_judge_row()")
    op.execute("DROP FUNCTION promotions_refuse_change()")
