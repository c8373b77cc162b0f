"""A first draft of a use case from files of events: `ml-assets check` passes it, and it lists what to think about.

Each file is an event of its own. The rows of the first file are what is decided on, at the end of the day on which they
happened. The drafted outcome is that no row of the last file has come for it in time.
"""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path

import duckdb

from ml_assets.duck import open_duckdb
from ml_assets.errors import InputError
from ml_assets.landing.files import FORMATS, field_name

_KINDS = {
    "BOOLEAN": "bool",
    "DATE": "date",
    "DOUBLE": "float",
    "FLOAT": "float",
    "BIGINT": "int",
    "HUGEINT": "float",
    "INTEGER": "int",
    "SMALLINT": "int",
    "TINYINT": "int",
    "UBIGINT": "int",
    "UINTEGER": "int",
    "TIMESTAMP": "datetime",
    "TIMESTAMP WITH TIME ZONE": "datetime",
    "TIMESTAMP_NS": "datetime",
}
_READERS = {"CSV": "read_csv", "JSON lines": "read_json", "Parquet": "read_parquet"}
_OURS = {"event_id", "event_time", "known_at", "business_date", "broker_time"}
# A text column with more values than this is a name and not a category.
_MOST_KINDS = 50


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a file: the field that it becomes, its type in Python, and how many values it has."""

    field: str
    kind: str
    optional: bool
    values: int


@dataclass(frozen=True, slots=True)
class EventFile:
    """A file of events: its name as an event, and what it holds."""

    event: str
    path: Path
    columns: tuple[Column, ...]
    first: date
    last: date

    @property
    def contract(self) -> str:
        """The name of its class."""
        return "".join(part.capitalize() for part in self.event.split("_"))


@dataclass(frozen=True, slots=True)
class Draft:
    """What was written, and which file is which event."""

    paths: tuple[Path, ...]
    events: dict[str, Path]


def draft(name: str, files: Sequence[Path], *, entity: str, time: str, package: str) -> Draft:
    """Write the folder of a use case below the folder `package`, which is created if it is missing.

    Raises:
        ValueError: a name or a file cannot be used.
        FileExistsError: the use case is there already.
    """
    for what, word in (("use case", name), ("package", package)):
        if not (word.isidentifier() and word.isascii() and word == word.lower()):
            raise InputError(f"{word!r} cannot be the name of a {what}: take lower-case letters, digits and _")
    events = [_look(path, time) for path in files]
    twice = [one.event for one, other in pairwise(sorted(events, key=lambda e: e.event)) if one.event == other.event]
    if twice:
        raise InputError(f"two files would both be the event {twice[0]}; rename one")
    for event in events:
        if field_name(entity) not in {column.field for column in event.columns}:
            has = ", ".join(column.field for column in event.columns)
            raise InputError(f"{event.path.name} has no column {entity!r}, by which its rows are told; it has {has}")
    folder = Path(package) / name
    if folder.exists():
        raise FileExistsError(f"{folder} is there already; take another name, or delete it")
    texts = {"__init__.py": f'"""{_title(name)}."""\n', **_texts(name, events, field_name(entity), package)}
    paths = []
    top = Path(package) / "__init__.py"
    if not top.exists():
        top.parent.mkdir(parents=True, exist_ok=True)
        top.write_text('"""Use cases, one folder each."""\n', encoding="utf-8")
        paths.append(top)
    for file, text in texts.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return Draft(tuple(paths), {event.event: event.path for event in events})


def _look(path: Path, time: str) -> EventFile:
    kind = FORMATS.get(path.suffix.lower())
    if not path.is_file() or kind is None:
        raise InputError(f"{path} is not a file of events: they end in {', '.join(FORMATS)}")
    event = field_name(path.stem)
    with open_duckdb() as db:
        try:
            rows = db.from_query(f"SELECT * FROM {_READERS[kind]}(?)", params=[str(path)])
            described = list(zip(rows.columns, map(str, rows.types), strict=True))
            db.execute(f"CREATE TABLE rows AS SELECT * FROM {_READERS[kind]}(?)", [str(path)])
        except duckdb.Error as error:
            raise InputError(f"{path.name} cannot be read as {kind}: {str(error).splitlines()[0]}") from error
        at = next((column for column, _ in described if field_name(column) == field_name(time)), None)
        if at is None:
            raise InputError(
                f"{path.name} has no column {time!r}; it has {', '.join(column for column, _ in described)}"
            )
        columns = []
        for column, type_ in described:
            quoted = '"' + column.replace('"', '""') + '"'
            ((values, missing),) = db.execute(
                f"SELECT count(DISTINCT {quoted}), count(*) - count({quoted}) FROM rows"
            ).fetchall()
            python = "float" if type_.startswith("DECIMAL") else _KINDS.get(type_, "str")
            field = field_name(column)
            if field not in _OURS:
                columns.append(Column(field, python, bool(missing), int(values)))
        try:
            ((first, last),) = db.execute(
                f'SELECT min(t)::DATE, max(t)::DATE FROM (SELECT CAST("{at}" AS TIMESTAMPTZ) AS t FROM rows)'
            ).fetchall()
        except duckdb.Error as error:
            raise InputError(f"{path.name}: {time!r} does not hold times: {str(error).splitlines()[0]}") from error
    if first is None:
        raise InputError(f"{path.name} has no rows")
    return EventFile(event, path, tuple(columns), first, last)


def _texts(name: str, events: Sequence[EventFile], entity: str, package: str) -> dict[str, str]:
    first, last = events[0], events[-1]
    mine = [column for column in first.columns if column.field != entity]
    told = entity
    entity = _quoted(entity)
    numbers = [column.field for column in mine if column.kind in ("int", "float")][:20]
    kinds = [c.field for c in mine if c.kind == "str" and 1 < c.values <= _MOST_KINDS][:10]
    group = kinds[0] if kinds else ""
    shown = "".join(f",\n        '{field}', {_quoted(field)}" for field in [*kinds, *numbers][:8])
    handed_on = "".join(f",\n    {_quoted(field)}" for field in [*numbers, *kinds])
    numeric = [*numbers, "seen_30d"]
    if len(events) > 1:
        label = f"""
            -- 1 if nothing of `{last.event}` has come for it by the end of the outcome date, else 0.
            -- THINK: is that the outcome? What waits for it must be 0 or 1 by label.known_at of usecase.py.
            SELECT entity_id, (count(came.{entity}) = 0)::INT AS label
            FROM (SELECT DISTINCT entity_id FROM decisions) AS decided
            LEFT JOIN {last.event} AS came
                ON came.{entity}::VARCHAR = entity_id AND came.event_time::DATE <= getvariable('decision_date')
            GROUP BY entity_id
        """
    else:
        label = f"""
            -- 1 if `{first.event}` tells of it again by the end of the outcome date, else 0.
            -- THINK: is that the outcome? If another file tells of it, draft from both: --from one --from other
            SELECT entity_id, (count(again.{entity}) > 1)::INT AS label
            FROM (SELECT DISTINCT entity_id FROM decisions) AS decided
            LEFT JOIN {first.event} AS again
                ON again.{entity}::VARCHAR = entity_id AND again.event_time::DATE <= getvariable('decision_date')
            GROUP BY entity_id
        """
    heads = f"""
            -- @entity: {told}
            -- @as_of: what is known at the decision
            -- @owner: my-team""".strip("\n")
    same = f" AND past.{_quoted(group)} = d.{_quoted(group)}" if group else ""
    of_group = f" of the same {group}" if group else ""
    texts = {
        "contracts.py": _contracts(events),
        "features/decisions.sql": f"""
{heads}
            --
            -- What is decided: each row of `{first.event}`, in the evening of the business day on which it happened, or
            -- of the next one.
            -- THINK: is an outcome two business days later what you want to know of? It must follow the decision.
            -- THINK: cost_if_fail is what it costs if it happens, in the currency of usecase.py; here 100 for each.
            SELECT
                {entity}::VARCHAR AS entity_id,
                (SELECT min(business_date) FROM business_days
                 WHERE business_date >= getvariable('decision_date') + 2) AS outcome_date,
                100.0 AS cost_if_fail,
                json_object('{told}', {entity}{_indent(shown)})::VARCHAR AS attributes{_indent(handed_on)}
            FROM {first.event}
            WHERE event_time <= getvariable('as_of')
              AND event_time::TIMESTAMP > (
                  SELECT previous FROM business_days WHERE business_date = getvariable('decision_date')
              ) + (getvariable('as_of')::TIMESTAMP - getvariable('decision_date')::TIMESTAMP)
            QUALIFY row_number() OVER (PARTITION BY {entity} ORDER BY event_time DESC, event_id DESC) = 1
        """,
        "features/past.sql": f"""
{heads}
            --
            -- How many have come in the last 30 days{of_group}, as known at the decision.
            -- THINK: what was the outcome of earlier ones? That is usually the best feature: a rate of the last months.
            SELECT d.entity_id, count(past.event_id)::DOUBLE AS seen_30d
            FROM decisions AS d
            LEFT JOIN {first.event} AS past
                ON past.event_time::DATE > getvariable('decision_date') - 30{same}
            GROUP BY d.entity_id
        """,
        "label.sql": label,
        "usecase.py": _usecase(name, events, told, numeric, kinds),
        f"test_{name}.py": f'''
            """The use case is complete."""

            from ml_assets.lifecycle.check import check_usecase
            from {package}.{name}.usecase import USE_CASE


            def test_nothing_is_missing():
                assert [str(one) for one in check_usecase(USE_CASE) if one.error] == []
        ''',
    }
    return {file: _dedent(text) for file, text in texts.items()}


def _contracts(events: Sequence[EventFile]) -> str:
    classes = ""
    for event in events:
        fields = "\n".join(
            f"    {column.field}: {column.kind}{' | None = None' if column.optional else ''}"
            for column in event.columns
        )
        classes += (
            f'\n\nclass {event.contract}(Event, frozen=True, kw_only=True):\n    """A row of {event.path.name}."""\n\n'
        )
        classes += f"{fields}\n"
    used = {column.kind for event in events for column in event.columns} & {"date", "datetime"}
    dates = f"from datetime import {', '.join(sorted(used))}\n\n" if used else ""
    return (
        '"""What an event looks like. Each has event_id and event_time too."""\n\n'
        + dates
        + "from ml_assets.contracts import Event\n\n"
        + "# THINK: a field of few values can be a Literal[...]; what is `| None` may be missing.\n"
        + classes
    )


def _usecase(name: str, events: Sequence[EventFile], entity: str, numeric: Sequence[str], kinds: Sequence[str]) -> str:
    specs = "\n".join(
        f'        EventSpec("{one.event}", "{name}_{one.event}", {one.contract}, "Rows of {one.path.name}."),'
        for one in events
    )
    features = "\n".join(
        [
            *(f'    Feature("{field}", "{_title(field)}"),' for field in numeric),
            *(f'    Feature("{field}", "{_title(field)}", kind="categorical"),' for field in kinds),
        ]
    )
    weekdays = max(8, (events[0].last - events[0].first).days * 5 // 7 - 8)
    test, calibration = max(3, weekdays // 4), max(2, weekdays // 6)
    train = max(3, weekdays - test - calibration)
    contracts = ", ".join(sorted(one.contract for one in events))
    start = events[0].first
    return f'''"""{_title(name)}: drafted from {", ".join(one.path.name for one in events)}."""

from datetime import UTC, date, datetime, time
from pathlib import Path

from ml_assets.calendars import BusinessCalendar
from ml_assets.learning.candidates import hist_gradient_boosting, logistic, rule
from ml_assets.spec import ActionSpec, EventSpec, Feature, GateSpec, LabelSpec, Slot, SplitSpec, UseCase

from .contracts import {contracts}

# THINK: whose business days are these? NYSE, ECB (TARGET), or another of the package `holidays`.
CALENDAR = BusinessCalendar("ECB")

FEATURES = (
{features}
)


def known_at(outcome_date: date) -> datetime:
    """Return when the outcome of a date is known: the morning of the next business day."""
    return datetime.combine(CALENDAR.next(outcome_date), time(6), tzinfo=UTC)


USE_CASE = UseCase(
    name="{name}",
    title="{_title(name)}",
    # THINK: say in a sentence what is predicted, of what, and when.
    description="Drafted from files.",
    entity="{entity}",
    owner="my-team",
    # THINK: in tier "high" a person approves each promotion.
    tier="low",
    folder=Path(__file__).parent,
    calendar=CALENDAR,
    first_partition=date({start.year}, {start.month}, {start.day}),
    events=(
{specs}
    ),
    slots=(Slot("evening", time(23)),),
    features=FEATURES,
    label=LabelSpec("label", "It did not come in time.", known_at),
    split=SplitSpec(train_days={train}, calibration_days={calibration}, test_days={test}),
    # THINK: the rule is what people do today: rank by one number. A model must beat it.
    candidates=(rule("{numeric[0]}", description="Highest {numeric[0]} first."), logistic(), hist_gradient_boosting()),
    # THINK: how many can the team act on a day, what does acting cost, and how often does it help?
    capacity=20,
    action=ActionSpec(cost=5.0, effectiveness=0.5),
    gate=GateSpec(min_test_positives=30),
    # THINK: what must the model not be used for, where is it weak?
    limits=("Drafted: nobody has said yet what it must not be used for.",),
)
'''


def _quoted(field: str) -> str:
    """Return a field as SQL can name it."""
    with open_duckdb() as db:
        reserved = db.execute(
            "SELECT 1 FROM duckdb_keywords() WHERE keyword_name = ? AND keyword_category = 'reserved'", [field]
        ).fetchall()
    return f'"{field}"' if reserved else field


def _title(name: str) -> str:
    return name.replace("_", " ").strip().capitalize()


def _indent(text: str) -> str:
    return text.replace("\n    ", "\n                ")


def _dedent(text: str) -> str:
    return textwrap.dedent(re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)).strip("\n") + "\n"
