"""Outcomes of predictions, performance, estimates, and the decisions to retrain or not."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def _column(name: str, kind: sa.types.TypeEngine[Any], *, null: bool = False) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=null)


def upgrade() -> None:
    """Apply."""
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "outcomes",
        _column("use_case", sa.Text()),
        _column("outcome_date", sa.Date()),
        _column("stage", sa.Text()),
        _column("entity_id", sa.Text()),
        _column("decision_time", moment),
        _column("decision_date", sa.Date()),
        _column("slot", sa.Text()),
        _column("model_version", sa.Integer()),
        _column("probability", sa.Double()),
        _column("cost_if_fail", sa.Double()),
        _column("expected_cost", sa.Double()),
        _column("on_list", sa.Boolean()),
        _column("is_last", sa.Boolean()),
        _column("label", sa.Integer(), null=True),
        _column("label_known_at", moment, null=True),
        _column("is_complete", sa.Boolean()),
        sa.PrimaryKeyConstraint("use_case", "outcome_date", "stage", "entity_id", "decision_time", name="pk_outcomes"),
    )
    op.create_table(
        "performance",
        _column("use_case", sa.Text()),
        _column("outcome_date", sa.Date()),
        _column("dimension", sa.Text()),
        _column("value", sa.Text()),
        _column("metric", sa.Text()),
        _column("measured", sa.Double(), null=True),
        _column("low", sa.Double(), null=True),
        _column("high", sa.Double(), null=True),
        _column("n", sa.Integer()),
        _column("positives", sa.Integer()),
        _column("days", sa.Integer()),
        _column("judged", sa.Boolean()),
        sa.PrimaryKeyConstraint("use_case", "outcome_date", "dimension", "value", "metric", name="pk_performance"),
    )
    op.create_table(
        "estimates",
        _column("use_case", sa.Text()),
        _column("outcome_date", sa.Date()),
        _column("metric", sa.Text()),
        _column("estimated", sa.Double(), null=True),
        _column("low", sa.Double(), null=True),
        _column("high", sa.Double(), null=True),
        _column("realised", sa.Double(), null=True),
        _column("n", sa.Integer()),
        _column("published", sa.Boolean()),
        _column("why", sa.Text()),
        sa.PrimaryKeyConstraint("use_case", "outcome_date", "metric", name="pk_estimates"),
    )
    op.create_table(
        "retraining_decisions",
        _column("use_case", sa.Text()),
        _column("decision_date", sa.Date()),
        _column("outcome", sa.Text()),
        _column("reason", sa.Text()),
        _column("numbers", postgresql.JSONB()),
        _column("decided_at", moment),
        _column("dagster_run_id", sa.Text()),
        sa.PrimaryKeyConstraint("use_case", "decision_date", name="pk_retraining_decisions"),
        sa.CheckConstraint(
            "outcome IN ('retrain', 'wait', 'ask a person')", name=op.f("ck_retraining_decisions_outcome")
        ),
    )


def downgrade() -> None:
    """Take back."""
    for table in ("retraining_decisions", "estimates", "performance", "outcomes"):
        op.drop_table(table)
