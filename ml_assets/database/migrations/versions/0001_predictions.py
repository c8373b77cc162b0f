"""Predictions, and which model version speaks for each decision time."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "predictions",
        sa.Column("use_case", sa.Text(), nullable=False),
        sa.Column("decision_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model_version", sa.Integer(), nullable=False),
        sa.Column("entity_id", sa.Text(), nullable=False),
        sa.Column("decision_date", sa.Date(), nullable=False),
        sa.Column("slot", sa.Text(), nullable=False),
        sa.Column("outcome_date", sa.Date(), nullable=False),
        sa.Column("probability", sa.Double(), nullable=False),
        sa.Column("cost_if_fail", sa.Double(), nullable=False),
        sa.Column("expected_cost", sa.Double(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("reason_codes", postgresql.JSONB()),
        sa.Column("attributes", postgresql.JSONB()),
        sa.Column("model_name", sa.Text(), nullable=False),
        sa.Column("mlflow_run_id", sa.Text(), nullable=False),
        sa.Column("feature_set_hash", sa.Text(), nullable=False),
        sa.Column("data_versions", postgresql.JSONB(), nullable=False),
        sa.Column("git_commit", sa.Text(), nullable=False),
        sa.Column("dagster_run_id", sa.Text(), nullable=False),
        sa.Column("scored_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("use_case", "decision_time", "model_version", "entity_id", name="pk_predictions"),
    )
    op.create_index(
        "ix_predictions_use_case_outcome_date_entity_id_decision_time",
        "predictions",
        ["use_case", "outcome_date", "entity_id", "decision_time"],
    )
    op.create_table(
        "scorings",
        sa.Column("use_case", sa.Text(), nullable=False),
        sa.Column("decision_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model_version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("use_case", "decision_time", name="pk_scorings"),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("scorings")
    op.drop_table("predictions")
