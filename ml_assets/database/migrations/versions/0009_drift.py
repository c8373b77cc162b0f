"""What has drifted, by decision date."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    texts, numbers = ("use_case", "kind", "name", "measure"), ("value", "expected", "low", "high", "moved")
    op.create_table(
        "drift",
        *(sa.Column(name, sa.Text(), nullable=False) for name in texts),
        sa.Column("decision_date", sa.Date(), nullable=False),
        *(sa.Column(name, sa.Double(), nullable=True) for name in numbers),
        sa.Column("n", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.Boolean(), nullable=False) for name in ("judged", "breached", "drifted")),
        sa.Column("why", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("use_case", "decision_date", "kind", "name", "measure", name="pk_drift"),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("drift")
