"""Predictions are told apart by MLflow run, and a scoring says of which outcome dates it decided everything open.

A version is a number for people: MLflow counts anew once a registered model has been deleted, and predictions of the
new version 1 would have overwritten those of the old. Scorings from before say nothing of outcome dates: their rows
stay on the work-list until the date is scored again.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# Of rows that the other key takes for one: those that speak stay, else those of the higher version or the later run.
_DROP_TWICE = """
    DELETE FROM predictions AS twice
    USING predictions AS kept
    WHERE (kept.use_case, kept.decision_time, kept.entity_id, kept.{same})
            = (twice.use_case, twice.decision_time, twice.entity_id, twice.{same})
        AND kept.{other} <> twice.{other}
        AND (kept.use_case, kept.{same}) IN (
            SELECT use_case, {same} FROM predictions GROUP BY use_case, {same} HAVING min({other}) <> max({other})
        )
        AND (
            EXISTS (SELECT FROM scorings s WHERE s.use_case = kept.use_case AND s.decision_time = kept.decision_time
                AND (s.model_version, s.mlflow_run_id) = (kept.model_version, kept.mlflow_run_id)),
            kept.scored_at, kept.{other}
        ) > (
            EXISTS (SELECT FROM scorings s WHERE s.use_case = twice.use_case AND s.decision_time = twice.decision_time
                AND (s.model_version, s.mlflow_run_id) = (twice.model_version, twice.mlflow_run_id)),
            twice.scored_at, twice.{other}
        )
"""
_RUN_THAT_SPEAKS = """
    UPDATE scorings SET mlflow_run_id = (
        SELECT mlflow_run_id FROM predictions
        WHERE predictions.use_case = scorings.use_case AND predictions.decision_time = scorings.decision_time
            AND predictions.model_version = scorings.model_version
        ORDER BY scored_at DESC LIMIT 1
    )
"""


def upgrade() -> None:
    """Apply. The primary key is built anew: for its length nobody writes predictions."""
    op.add_column("scorings", sa.Column("mlflow_run_id", sa.Text()))
    op.add_column("scorings", sa.Column("decides", postgresql.DATERANGE()))
    op.execute(_RUN_THAT_SPEAKS)
    op.execute("DELETE FROM scorings WHERE mlflow_run_id IS NULL")  # of nothing
    op.alter_column("scorings", "mlflow_run_id", nullable=False)
    op.execute(_DROP_TWICE.format(same="mlflow_run_id", other="model_version"))
    _set_key("mlflow_run_id")


def downgrade() -> None:
    """Take back. Of two models of one version number, the predictions of the one that does not speak are dropped."""
    op.execute(_DROP_TWICE.format(same="model_version", other="mlflow_run_id"))
    _set_key("model_version")
    op.drop_column("scorings", "decides")
    op.drop_column("scorings", "mlflow_run_id")


def _set_key(model: str) -> None:
    op.execute("ALTER TABLE predictions DROP CONSTRAINT pk_predictions")
    key = f"use_case, decision_time, {model}, entity_id"
    op.execute(f"ALTER TABLE predictions ADD CONSTRAINT pk_predictions PRIMARY KEY ({key})")
