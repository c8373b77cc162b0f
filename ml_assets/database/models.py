"""The application's tables. Alembic revisions make them, and a test holds the two together.

A table's columns are declared once, here: the Arrow schema of predictions and the SQL of the upsert derive from
them. A column marked `PROVENANCE` tells how the values of a row came about. It stays as first written while the
values are equal, so that scoring again changes no row.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Date,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

PROVENANCE: Final = {"provenance": True}
_MONTH: Final = re.compile(r"predictions_\d{4}_\d{2}")


def is_declared(name: str | None, kind: str, _parents: object = None) -> bool:
    """Return whether something in the database has to be in the models: a month's table of predictions has not."""
    return not (kind == "table" and _MONTH.fullmatch(name or ""))


class Base(DeclarativeBase):
    """All tables of the application's database."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - read by SQLAlchemy once, when the class is made
        str: Text,
        int: Integer,
        float: Double,
        date: Date,
        datetime: DateTime(timezone=True),
    }


class Prediction(Base):
    """One entity scored at one decision time by one model version.

    Probabilities lie in [0, 1]; costs are in the currency of the use case. `rank` counts from 1 by falling
    `expected_cost` among the predictions of the same use case, decision time and model version.
    """

    __tablename__ = "predictions"

    use_case: Mapped[str] = mapped_column(primary_key=True)
    decision_time: Mapped[datetime] = mapped_column(primary_key=True)
    model_version: Mapped[int] = mapped_column(primary_key=True)
    entity_id: Mapped[str] = mapped_column(primary_key=True)
    decision_date: Mapped[date]
    slot: Mapped[str]
    outcome_date: Mapped[date]
    probability: Mapped[float]
    cost_if_fail: Mapped[float]
    expected_cost: Mapped[float]
    rank: Mapped[int]
    reason_codes: Mapped[Any | None] = mapped_column(JSONB)
    attributes: Mapped[Any | None] = mapped_column(JSONB)
    model_name: Mapped[str]
    mlflow_run_id: Mapped[str]
    feature_set_hash: Mapped[str]
    data_versions: Mapped[Any] = mapped_column(JSONB, info=PROVENANCE)
    git_commit: Mapped[str] = mapped_column(info=PROVENANCE)
    dagster_run_id: Mapped[str] = mapped_column(info=PROVENANCE)
    scored_at: Mapped[datetime] = mapped_column(info=PROVENANCE)

    __table_args__ = (
        # The work-list: the latest decision of each entity with an outcome date. The primary key has the entity last,
        # so that a scored partition lies together, is written together and is found without another index.
        Index(None, "use_case", "outcome_date", "entity_id", "decision_time"),
        # A table a month, made when it is first written to: `predictions.retire_predictions` drops those that are old.
        {"postgresql_partition_by": "RANGE (decision_time)"},
    )


class Scoring(Base):
    """Which model version speaks for a decision time: the one that was asked last.

    The time of scoring cannot tell. After a rollback the old champion scores again, finds its rows unchanged and
    leaves their `scored_at` as it was, older than the rows of the version that was rolled back.
    """

    __tablename__ = "scorings"

    use_case: Mapped[str] = mapped_column(primary_key=True)
    decision_time: Mapped[datetime] = mapped_column(primary_key=True)
    model_version: Mapped[int]


class Promotion(Base):
    """One line of the promotion ledger. The database adds rows and refuses to change or delete them.

    `action` is `requested` (a version awaits approval), `declined`, `promoted`, `rolled_back`, or `restored` (the alias
    had been moved past the ledger). `actor` is a person, or the Dagster run that acted by itself. `evidence_hash` is
    the SHA-256 of the evidence that the decision rests on. `request_id` is the request that an approval answers.
    """

    __tablename__ = "promotions"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    use_case: Mapped[str]
    action: Mapped[str]
    from_version: Mapped[int | None]
    to_version: Mapped[int]
    actor: Mapped[str]
    is_person: Mapped[bool]
    needs_approval: Mapped[bool]
    request_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey("promotions.id"), unique=True)
    evidence_hash: Mapped[str | None]
    reason: Mapped[str]
    recorded_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    database_user: Mapped[str] = mapped_column(server_default=text("session_user"))

    __table_args__ = (
        CheckConstraint("action IN ('requested', 'declined', 'promoted', 'rolled_back', 'restored')", name="action"),
        CheckConstraint(
            "action <> 'promoted' OR NOT needs_approval OR (request_id IS NOT NULL AND is_person)", name="approved"
        ),
        CheckConstraint("actor <> '' AND reason <> ''", name="said"),
        CheckConstraint("action NOT IN ('requested', 'promoted') OR evidence_hash IS NOT NULL", name="evidence"),
        Index(None, "use_case", "id"),
    )
