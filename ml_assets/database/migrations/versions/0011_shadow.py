"""Verdicts on the model in the shadow; a run may roll a promoted model back once, outside the tier high."""

import sqlalchemy as sa
from alembic import op

from ml_assets.errors import StateError

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_FOR_PERSONS = "ELSIF NEW.action IN ('declined', 'rolled_back', 'restored') AND NOT NEW.is_person THEN"
_ONCE_BY_A_RUN = """ELSIF NEW.action = 'rolled_back' AND NOT NEW.is_person AND (tier = 'high' OR EXISTS (
        SELECT FROM public.promotions taken
        WHERE taken.use_case = NEW.use_case AND taken.action = 'rolled_back' AND NOT taken.is_person
            AND taken.from_run_id = champion.mlflow_run_id)) THEN
        why := 'a run rolls a model back once, and never in the tier high: this is for a person';
    ELSIF NEW.action IN ('declined', 'restored') AND NOT NEW.is_person THEN"""


def upgrade() -> None:
    """Apply."""
    texts = ("use_case", "champion_run_id", "shadow_run_id", "metric", "says", "sentence")
    numbers = ("of_champion", "of_shadow", "gain", "low", "high", "saved_per_day")
    counts = ("champion_version", "shadow_version", "n", "positives", "days")
    op.create_table(
        "shadow_verdicts",
        *(sa.Column(name, sa.Text(), nullable=False) for name in texts),
        sa.Column("decision_date", sa.Date(), nullable=False),
        *(sa.Column(name, sa.Double(), nullable=True) for name in numbers),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in counts),
        sa.PrimaryKeyConstraint("use_case", "decision_date", name="pk_shadow_verdicts"),
    )
    _replace(_FOR_PERSONS, _ONCE_BY_A_RUN)


def downgrade() -> None:
    """Take back."""
    _replace(_ONCE_BY_A_RUN, _FOR_PERSONS)
    op.drop_table("shadow_verdicts")


def _replace(before: str, after: str) -> None:
    """Replace a part of the function that judges the ledger's lines; the rest stays as other revisions made it."""
    connection = op.get_bind()
    found = connection.scalar(sa.text("SELECT pg_get_functiondef('public.promotions_judge_row'::regproc)"))
    if found.count(before) != 1:
        raise StateError(
            f"the function promotions_judge_row is not the one of revision 0010: it has not once {before!r}. "
            "Somebody changed it by hand; restore it from the migrations, then migrate again"
        )
    connection.execute(sa.text(found.replace(before, after).replace(":", r"\:")))
