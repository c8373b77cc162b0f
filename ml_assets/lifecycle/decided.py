"""At which times decisions were made, in which version of the features table, and from which versions of other tables.

The features of a date may be made again. What was noted of the time before stays: predictions may have been made from
those features.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date

import pyarrow as pa
import pyarrow.dataset as ds

from ml_assets.features import DECIDED_SCHEMA, DECISION_TIMES_SCHEMA
from ml_assets.lake import Lake, decision_times_table, in_turn
from ml_assets.spec import DecisionTime, UseCase


def note_decided(
    lake: Lake,
    usecase: UseCase,
    dates: Sequence[date],
    decided: Sequence[DecisionTime],
    *,
    features: int,
    made_from: Mapping[str, int],
) -> None:
    """Note of these decision dates that `decided` are all their times, whose rows are in the version `features`.

    `made_from` are the Delta versions of the tables that the rows were made from.
    """
    text = json.dumps(dict(made_from), sort_keys=True)
    rows = [
        {
            "decision_date": one.decision_date,
            "slot": one.slot,
            "decision_time": one.as_of,
            "features_version": features,
            "made_from": text,
        }
        for one in decided
    ]
    table, new = decision_times_table(usecase), pa.Table.from_pylist(rows, schema=DECIDED_SCHEMA)

    def add() -> int:
        before = lake.stand(table)
        noted = pa.concat_tables([_noted(lake, usecase, dates), new])
        return lake.replace(table, noted, "decision_date", dates, since=before)

    in_turn(add, f"{table}, {min(dates)} to {max(dates)}")


def decided_times(lake: Lake, usecase: UseCase, dates: Sequence[date], features: pa.Table) -> list[DecisionTime]:
    """Return the decision times of these dates at which features were made, in order, also those with nothing open.

    `features` are those of the dates: what was made before these times were kept is known by its rows.
    """
    noted = _noted(lake, usecase, dates).to_pylist()
    newest: dict[date, int] = {}
    for row in noted:
        newest[row["decision_date"]] = max(newest.get(row["decision_date"], -1), _version(row))
    rows = features.select(DECISION_TIMES_SCHEMA.names).group_by(["slot", "decision_time"]).aggregate([]).to_pylist()
    rows += [row for row in noted if _version(row) == newest[row["decision_date"]]]
    found = {DecisionTime(row["slot"], row["decision_time"].astimezone(UTC)) for row in rows}
    return sorted(found, key=lambda decision: (decision.as_of, decision.slot))


def made_from(lake: Lake, usecase: UseCase, features: Iterable[tuple[date, int]]) -> dict[str, set[int]]:
    """Return the versions of the tables that features were made from, by table.

    `features` are decision dates, each with a version of the features table. What was made before this was noted is
    left out.
    """
    wanted = set(features)
    makes: dict[date, dict[int, str]] = {}
    for row in _noted(lake, usecase, {day for day, _ in wanted}).to_pylist():
        if row["made_from"] is not None:
            makes.setdefault(row["decision_date"], {})[_version(row)] = row["made_from"]
    texts = set()
    for day, version in wanted:
        # The rows of a date stay as they are when those of another one are made.
        if before := [one for one in makes.get(day, ()) if one <= version]:
            texts.add(makes[day][max(before)])
    found: dict[str, set[int]] = {}
    for text in texts:
        for table, version in json.loads(text).items():
            found.setdefault(table, set()).add(int(version))
    return found


def _noted(lake: Lake, usecase: UseCase, dates: Iterable[date]) -> pa.Table:
    """Return what is noted of these decision dates; what was noted before there were versions has none."""
    dataset = lake.dataset(decision_times_table(usecase))
    if dataset is None:
        return DECIDED_SCHEMA.empty_table()
    there = [name for name in DECIDED_SCHEMA.names if name in dataset.schema.names]
    rows = dataset.to_table(there, filter=ds.field("decision_date").isin(pa.array(sorted(dates), pa.date32())))
    for field in DECIDED_SCHEMA:
        if field.name not in there:
            rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
    return rows.cast(DECIDED_SCHEMA)


def _version(row: Mapping[str, int | None]) -> int:
    version = row["features_version"]
    return -1 if version is None else version
