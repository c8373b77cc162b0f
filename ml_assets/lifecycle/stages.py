"""Who answers in the scoring service, and who scores in the shadow: by the ledger, and by the scores that landed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Engine

from ml_assets.answers import SERVED_SCORES
from ml_assets.database.promotions import StageLines, stage_lines
from ml_assets.duck import open_duckdb
from ml_assets.lake import Lake, landing_table
from ml_assets.landing.schemas import EVENT, event_schema
from ml_assets.spec import UseCase

SQL = Path(__file__).with_name("sql") / "served_stages.sql"
# So far back scores are counted, at most: a busy service gives millions a day.
_LOOK_BACK = timedelta(days=1)
_COLUMNS = [
    "stage", "model_version", "mlflow_run_id", "entity_id", "slot", "outcome_date", "request_id", "event_time",
    "probability", "latency_ms", "what_if",
]  # fmt: skip


@dataclass(frozen=True)
class ServedStages:
    """The ledger's lines, and what each stage and version said since a time: the columns of `served_stages.sql`."""

    lines: StageLines
    since: datetime
    rows: pa.Table


def served_stages(
    lake: Lake, engine: Engine | str, usecase: UseCase, *, now: datetime | None = None, threads: int = 0
) -> ServedStages:
    """Return who stands where, and what was said in the last day, but not before this champion."""
    lines = stage_lines(engine, usecase.name)
    since = (now or datetime.now(UTC)) - _LOOK_BACK
    if lines.champion is not None:
        since = max(since, lines.champion.recorded_at)
    with open_duckdb(threads) as db:
        db.register("served", _served(lake, usecase, since))
        return ServedStages(lines, since, db.sql(SQL.read_text(encoding="utf-8")).to_arrow_table())


def _served(lake: Lake, usecase: UseCase, since: datetime) -> pa.Table:
    table = landing_table(SERVED_SCORES.topic)
    if lake.version(table) is None:
        return event_schema(SERVED_SCORES).empty_table().select(_COLUMNS)
    where = (
        (pc.field("kind") == EVENT)
        & (pc.field("business_date") >= since.date())
        & (pc.field("use_case") == usecase.name)
        & (pc.field("event_time") >= since)
    )
    return lake.read(table, columns=_COLUMNS, where=where)
