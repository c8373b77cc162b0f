"""The last look at what the feature SQL decided: what cannot be scored, stored or ordered is left out, by name."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.calendars import BusinessCalendar
from ml_assets.contracts import LONGEST_TEXT
from ml_assets.features.functions import parser
from ml_assets.spec import Need, PlaceSpec, UseCase


def sound(rows: pa.Table) -> tuple[pa.Table, list[tuple[str, str]]]:
    """Return the decisions that can be scored, and the others as (entity_id, reason).

    A sound decision has a finite cost that is not negative, an id that an index can hold, and an outcome date.
    """
    cost = rows["cost_if_fail"].cast(pa.float64())
    finite = pc.and_(pc.is_finite(cost), pc.greater_equal(cost, 0))
    length = pc.utf8_length(rows["entity_id"].cast(pa.string()))
    named = pc.and_(pc.greater(length, 0), pc.less_equal(length, LONGEST_TEXT))
    good = pc.and_(pc.and_(pc.fill_null(finite, False), pc.fill_null(named, False)), pc.is_valid(rows["outcome_date"]))
    if pc.all(good).as_py() is not False:
        return rows, []
    bad = rows.filter(pc.invert(good)).select(["entity_id", "cost_if_fail", "outcome_date"])
    return rows.filter(good), [(str(row["entity_id"])[:LONGEST_TEXT], _why(row)) for row in bad.to_pylist()]


def _why(row: dict[str, Any]) -> str:
    if not row["entity_id"] or len(row["entity_id"]) > LONGEST_TEXT:
        return f"entity_id is empty or longer than {LONGEST_TEXT} characters"
    if row["outcome_date"] is None:
        return "it has no outcome_date"
    return f"cost_if_fail is {row['cost_if_fail']}; it must be finite and not negative"


def lacking(usecase: UseCase, features: pa.Table) -> dict[str, int]:
    """Return how many decisions lack what they need, by what and for which value; or whose place is not settled.

    `features` has `attributes` and `outcome_date`.
    """
    found = dict(_lacking(usecase.needs, features))
    return {**found, **_displaced(usecase, usecase.places, features)} if usecase.places else found


def calendars_of(usecase: UseCase, attributes: pa.ChunkedArray) -> list[BusinessCalendar]:
    """Return the calendar of each decision, by the place that its attributes name."""
    if usecase.places is None:
        return [usecase.calendar] * len(attributes)
    rows = pa.table({"attributes": attributes})
    with parser().cursor() as db:
        db.register("rows", rows)
        places = db.execute(f"SELECT {_place(usecase.places)} FROM rows").fetchall()
    return [usecase.calendar_of(place) for (place,) in places]


def _place(places: PlaceSpec) -> str:
    """Return the SQL of the place that attributes name."""
    return f"json_extract_string(attributes, '$.\"{places.column}\"')"


def _displaced(usecase: UseCase, places: PlaceSpec, features: pa.Table) -> dict[str, int]:
    """Return how many decisions are at a place without a calendar, or of a date on which their place is closed."""
    rows = features.select(["attributes", "outcome_date"])
    with parser().cursor() as db:
        db.register("rows", rows)
        groups = db.execute(
            f"SELECT {_place(places)} AS place, outcome_date, count(*) FROM rows GROUP BY ALL ORDER BY ALL"
        ).fetchall()
    found = Counter[str]()
    for place, outcome_date, count in groups:
        if place not in places.calendars:
            said = f"has no calendar, so that of {usecase.calendar.market} counts; name it in usecase.py"
            found[f"{places.column} {place}: {said}"] += count
        if not usecase.calendar_of(place).is_business_day(outcome_date):
            found[f"{places.column} {place}: is closed on the outcome date, {outcome_date}"] += count
    return dict(found)


def _lacking(needs: Sequence[Need], features: pa.Table) -> Iterator[tuple[str, int]]:
    for need in needs:
        # As DuckDB's json_object writes it; only such rows are read as JSON.
        absent = pc.match_substring(features["attributes"], f'"{need.attribute}":null')
        said = features["attributes"].filter(absent)
        counts: dict[str, int] = {}
        for text in said.to_pylist():
            value = str(msgspec.json.decode(text).get(need.by))
            counts[value] = counts.get(value, 0) + 1
        for value, count in sorted(counts.items()):
            yield f"{need.by} {value}: {need.without}", count
