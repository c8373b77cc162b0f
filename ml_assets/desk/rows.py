"""Rows of the list as people read them: columns of the use case, filters, order, what has changed. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any, Final, Literal

from ml_assets.lot import lot
from ml_assets.markdown import shown
from ml_assets.predictions.control import action_of
from ml_assets.predictions.feedback import UNTOUCHED, Shown, Standing
from ml_assets.predictions.work_list import listed_row
from ml_assets.reports.units import UNITS, show
from ml_assets.spec import HANDLING, USUAL_WAY, DeskColumn, UseCase

# Longer texts are cut in the list; the page of the row has them in full.
_LONGEST: Final = 40
LONGEST_IN_FULL: Final = 2_000
_NUMBER: Final = UNITS["currency"]

View = Literal["open", "mine", "acted", "past", "closed", "all"]
VIEWS: Final[Mapping[View, str]] = {
    "open": "To do", "mine": "Mine", "acted": "Acted on", "past": "Past the cut-off", "closed": "No longer open",
    "all": "All",
}  # fmt: skip
# The state of a row that has been closed before anybody acted on it.
CLOSED: Final = "no longer open"
# What a list is ordered by, beside the use case's columns.
ORDERS: Final = ("priority", "entity", "left", "probability", "cost", "owner", "state")


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands in a column of the use case: text, the line below it, and whether it is a number."""

    text: str
    detail: str = ""
    is_number: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of the list: what the view `work_list` says of a decision, and how it is shown.

    `on_list` says whether the team is to act on it, `hidden` whether score and reason are kept from the reader, to
    measure how far people just follow them. `control` marks the control group.
    """

    entity_id: str
    priority: int
    decision_time: datetime
    slot: str
    probability: float
    cost_if_fail: float
    expected_cost: float
    reason_codes: Mapping[str, Any] | None
    attributes: Mapping[str, Any]
    model_version: int
    mlflow_run_id: str
    cut_off_at: datetime
    on_list: bool
    hidden: bool
    control: bool
    cells: tuple[Cell, ...]
    words: str

    @property
    def cause(self) -> str | None:
        """The code of the main cause, if one is known."""
        return self.reason_codes["cause"] if self.reason_codes else None

    @property
    def reason(self) -> str:
        """The main cause in words."""
        return str(self.reason_codes["name"] or "none stands out") if self.reason_codes else ""

    @property
    def action(self) -> str:
        """What is to be done."""
        return action_of(self.reason_codes, self.attributes)

    def is_hidden(self, standing: Standing) -> bool:
        """Return whether score and reason are kept from the reader: until somebody has acted."""
        return self.hidden and standing.acted is None

    def seen(self, standing: Standing = UNTOUCHED) -> Shown:
        """Return what a reader was shown of it."""
        hidden = self.is_hidden(standing)
        return Shown(
            decision_time=self.decision_time,
            priority=self.priority,
            probability=None if hidden else self.probability,
            expected_cost=None if hidden else self.expected_cost,
            cause=None if hidden else self.cause,
            model_version=self.model_version,
            mlflow_run_id=self.mlflow_run_id,
            cut_off_at=self.cut_off_at,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which rows a reader asked for and in which order: values of attributes by name, words to search for.

    `most` rows are on the page; the others one click away.
    """

    view: View = "open"
    words: str = ""
    cause: str = ""
    filters: Mapping[str, str]
    most: int = 250
    order: str = "priority"
    falling: bool = False


def columns_of(usecase: UseCase, found: Iterable[Mapping[str, Any]]) -> tuple[DeskColumn, ...]:
    """Return the columns of the use case's list: those of its spec, else one for each attribute that rows have."""
    if usecase.desk.columns:
        return usecase.desk.columns
    names = dict.fromkeys(name for attributes in found for name in attributes if name != HANDLING)
    return tuple(DeskColumn(name, name.replace("_", " ").capitalize()) for name in names)


def rows_of(usecase: UseCase, found: Sequence[Mapping[str, Any]]) -> tuple[tuple[DeskColumn, ...], tuple[Row, ...]]:
    """Return the columns and the rows of a list, as the view `work_list` gives it: by priority.

    Hidden rows stand at a place within the capacity that the lot chooses, since their own would tell their score.
    """
    columns = columns_of(usecase, [row["attributes"] or {} for row in found[:200]])
    rows = [_row(usecase, columns, row) for row in found]
    order = [row for row in rows if not row.hidden]
    for row in (row for row in rows if row.hidden):
        place = lot("place", usecase.name, row.entity_id) * min(usecase.capacity, len(rows))
        order.insert(int(place), row)
    return columns, tuple(order)


def _row(usecase: UseCase, columns: Sequence[DeskColumn], found: Mapping[str, Any]) -> Row:
    attributes = found["attributes"] or {}
    entity, day = str(found["entity_id"]), found["outcome_date"]
    on_list = listed_row(found["priority"], found["expected_cost"], usecase.capacity, usecase.action)
    share = usecase.desk.hidden_share
    cells = tuple(_cell(column, attributes) for column in columns)
    codes = found["reason_codes"]
    return Row(
        entity_id=entity,
        priority=found["priority"],
        decision_time=found["decision_time"].astimezone(UTC),
        slot=found["slot"],
        probability=found["probability"],
        cost_if_fail=found["cost_if_fail"],
        expected_cost=found["expected_cost"],
        reason_codes=codes,
        attributes=attributes,
        model_version=found["model_version"],
        mlflow_run_id=found["mlflow_run_id"],
        cut_off_at=cut_off_of(usecase, day, attributes),
        on_list=on_list,
        hidden=on_list and share > 0 and lot("hidden", usecase.name, str(day), entity) < share,
        control=attributes.get(HANDLING) == USUAL_WAY,
        cells=cells,
        words=" ".join([entity, *map(str, attributes.values())]).casefold(),
    )


def _cell(column: DeskColumn, attributes: Mapping[str, Any]) -> Cell:
    value = attributes.get(column.attribute)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    detail = attributes.get(column.detail) if column.detail else None
    return Cell(word(value, column.codes), word(detail, column.codes), number)


def word(value: Any, codes: Mapping[str, str] | None = None, longest: int = _LONGEST) -> str:
    """Return a value as people read it, in one line of visible characters; long texts are cut."""
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return show(value, _NUMBER) if abs(value) >= 100 or value == int(value) else f"{value:,.2f}"
    text = (codes or {}).get(str(value)) or shown(str(value)[: longest + 1])
    return text if len(text) <= longest else text[: longest - 1] + "…"


def facts_of(usecase: UseCase, row: Row, columns: Sequence[DeskColumn]) -> list[tuple[str, str]]:
    """Return what a decision is, in full: the title and the words of each attribute, those of the list first."""
    listed = [name for column in columns for name in (column.attribute, column.detail) if name]
    return [
        (title_of(columns, name), word(row.attributes[name], codes_of(columns, name), LONGEST_IN_FULL))
        for name in dict.fromkeys([*listed, *row.attributes])
        if row.attributes.get(name) is not None and name not in (HANDLING, usecase.desk.cut_off)
    ]


def title_of(columns: Sequence[DeskColumn], attribute: str) -> str:
    """Return what people call an attribute, with its unit."""
    for column in columns:
        if column.attribute == attribute:
            return f"{column.title} ({column.unit})" if column.unit else column.title
        if column.detail == attribute and column.detail_title:
            return column.detail_title
    return attribute.replace("_", " ").capitalize()


def cut_off_of(usecase: UseCase, day: date, attributes: Mapping[str, Any]) -> datetime:
    """Return until when something can be done about a decision: by its attribute, else by the use case."""
    said = attributes.get(usecase.desk.cut_off) if usecase.desk.cut_off else None
    try:
        at = time.fromisoformat(said) if isinstance(said, str) else usecase.action.until
    except ValueError:
        at = usecase.action.until
    return datetime.combine(day, at.replace(tzinfo=None), tzinfo=UTC)


def fingerprint(rows: Sequence[Row]) -> str:
    """Return twelve hex digits that change when any row or score of a list does."""
    digest = hashlib.sha256()
    for row in rows:
        said = (row.entity_id, row.decision_time.isoformat(), row.mlflow_run_id, repr(row.expected_cost))
        digest.update("\0".join(said).encode() + b"\n")
    return digest.hexdigest()[:12]


def chosen(
    rows: Sequence[Row],
    standings: Mapping[str, Standing],
    asked: Asked,
    reader: str,
    now: datetime,
    closed: Container[str] = (),
) -> list[Row]:
    """Return the rows that a reader asked for, in order. What is past its cut-off or done is on views of its own.

    So is what is `closed`: settled, cancelled or moved since it was scored.
    """
    phrase = " ".join(asked.words.casefold().split())
    # As it stands, if that is anywhere; else each of its words.
    words = [phrase] if any(phrase in row.words for row in rows) else phrase.split()
    found = [
        row
        for row in rows
        if in_view(row, standings.get(row.entity_id, UNTOUCHED), asked.view, reader, now, row.entity_id in closed)
        and all(word in row.words for word in words)
        and (not asked.cause or (row.cause == asked.cause and not row.hidden))
        and all(str(row.attributes.get(name)) == value for name, value in asked.filters.items())
    ]
    return ordered(found, standings, asked.order, asked.falling)


def in_view(row: Row, standing: Standing, view: View, reader: str, now: datetime, is_closed: bool) -> bool:
    """Return whether a row is in a view of a reader at a time."""
    past = row.cut_off_at <= now
    match view:
        case "open":
            return standing.acted is None and not past and not is_closed
        case "mine":
            return standing.owner == reader
        case "acted":
            return standing.acted is not None
        case "past":
            return past and standing.acted is None and not is_closed
        case "closed":
            return is_closed
        case _:
            return True


def ordered(rows: Sequence[Row], standings: Mapping[str, Standing], order: str, falling: bool) -> list[Row]:
    """Return rows by a column: one of `ORDERS`, or the number of a use case's column. Equal ones keep their order."""
    if order == "priority" or (order not in ORDERS and not order.isdecimal()):
        return list(reversed(rows)) if falling else list(rows)

    def key(row: Row) -> tuple[int, Any]:
        at = standings.get(row.entity_id, UNTOUCHED)
        match order:
            case "entity":
                return 0, row.entity_id
            case "left":
                return 0, row.cut_off_at
            case "probability" | "cost":
                # A hidden score is last either way: its place would tell it.
                value = row.probability if order == "probability" else row.expected_cost
                return (0, 0.0) if row.hidden else (1, value)
            case "owner":
                return int(at.owner is None), at.owner or ""
            case "state":
                return 0, at.state
            case _:
                number = int(order)
                cell = row.cells[number] if number < len(row.cells) else Cell("")
                if cell.is_number:
                    return 1, float(cell.text.replace(",", ""))
                return (0, cell.text.casefold()) if cell.text else (2, "")

    return sorted(rows, key=key, reverse=falling)


def changes(before: Sequence[Row], now: Sequence[Row], least: float = 0.05) -> dict[str, str]:
    """Return what has changed of rows since a reader looked: `new`, or by how much the probability moved, in points.

    Less than `least` is no change.
    """
    known = {row.entity_id: row for row in before}
    found = {}
    for row in now:
        if row.hidden:
            continue
        if (old := known.get(row.entity_id)) is None:
            found[row.entity_id] = "new"
        elif abs(row.probability - old.probability) >= least:
            found[row.entity_id] = f"{100 * (row.probability - old.probability):+.0f} points"
    return found


def options(rows: Sequence[Row], attribute: str, codes: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the values of an attribute among rows, each with its word, in order."""
    values = {str(row.attributes[attribute]) for row in rows if row.attributes.get(attribute) is not None}
    return sorted(((value, word(value, codes)) for value in values), key=lambda one: one[1].casefold())


def codes_of(columns: Sequence[DeskColumn], attribute: str) -> Mapping[str, str]:
    """Return the words of an attribute's values."""
    return next((column.codes for column in columns if attribute in (column.attribute, column.detail)), {})
