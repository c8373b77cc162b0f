"""Outcomes say who was in the control group."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("outcomes", sa.Column("control", sa.Boolean(), nullable=True))


def downgrade() -> None:
    """Take back."""
    op.drop_column("outcomes", "control")
