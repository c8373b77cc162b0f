"""The SQL of reports, run as of a time: what a report names are relations that end there, so it cannot see further.

| relation | holds |
| --- | --- |
| report | one row: use_case, date, month (its first day), as_of, currency, capacity, business_days_left of the month |
| predictions | those that speak for their decision time, decided by then |
| scorings | a row for each decision time up to then: slot, date, number of decisions, mean probability |
| work_list | the list as the view of this name makes it, from what was decided by then |
| work_list_week_before | the same, seven days earlier |
| outcomes | with the labels known by then; a date is complete once all of its labels were known |
| outcome_counts | outcome dates that were complete by then, added up: of all, and by value of each slice |
| performance, estimates | those of outcome dates that were complete by then; of others the estimate alone |
| retraining_decisions | those of dates up to the report's |
| drift | the measures of decision dates up to the report's |
| promotions | the lines of the ledger that were recorded by then |
| acted_on | what was said by then of rows of the list, as the view of this name makes it: no names of people |
| alert_events | the lines of the ledger of alerts that were recorded by then |
| lost_answers | what the scoring service has told by then of answers that it lost, of all use cases |

Who looks at more than a few dates reads `scorings` and `outcome_counts`: `predictions` and `outcomes` have millions of
rows.

A caller gives further relations as rows, such as what only the lake knows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

import psycopg
from psycopg import sql as compose
from psycopg.rows import dict_row
from sqlalchemy import Connection, Engine, text

from ml_assets.database.connect import begin
from ml_assets.database.newest import view_sql
from ml_assets.database.roles import MAY_BE, READ
from ml_assets.errors import InputError

_SECONDS: Final = 120
# What a person reads has fewer; a report that has more has forgotten to add up.
MOST_ROWS: Final = 5_000
_WEEK: Final = timedelta(days=7)

_REPORT: Final = """
report AS NOT MATERIALIZED (
    SELECT {use_case}::text AS use_case, {date}::date AS date, {month}::date AS month, {as_of}::timestamptz AS as_of,
        {currency}::text AS currency, {capacity}::integer AS capacity,
        {business_days_left}::integer AS business_days_left
)"""
_AS_OF: Final = """
predictions AS NOT MATERIALIZED (
    SELECT predictions.* FROM public.predictions JOIN public.scorings USING (use_case, decision_time, mlflow_run_id)
    WHERE use_case = {use_case} AND decision_time <= {as_of}
),
scorings AS NOT MATERIALIZED (
    SELECT * FROM public.scorings WHERE use_case = {use_case} AND decision_time <= {as_of}
),
work_list AS NOT MATERIALIZED ({work_list}),
work_list_week_before AS NOT MATERIALIZED ({work_list_week_before}),
outcomes AS NOT MATERIALIZED (
    SELECT
        use_case, outcome_date, stage, entity_id, decision_time, decision_date, slot, model_version, probability,
        cost_if_fail, expected_cost, on_list,
        row_number() OVER (
            PARTITION BY use_case, outcome_date, stage, entity_id ORDER BY decision_time DESC
        ) = 1 AS is_last,
        CASE WHEN label_known_at <= {as_of} THEN label END AS label,
        CASE WHEN label_known_at <= {as_of} THEN label_known_at END AS label_known_at,
        is_complete AND max(label_known_at) OVER (PARTITION BY use_case, outcome_date) <= {as_of} AS is_complete
    FROM public.outcomes
    WHERE use_case = {use_case} AND decision_time <= {as_of}
),
outcome_counts AS NOT MATERIALIZED (
    SELECT * FROM public.outcome_counts WHERE use_case = {use_case} AND is_complete AND known_at <= {as_of}
),
complete_until AS (
    SELECT max(outcome_date) AS outcome_date FROM public.outcome_counts
    WHERE use_case = {use_case} AND dimension = 'all' AND outcome_date BETWEEN {date}::date - 60 AND {date}::date
        AND is_complete AND known_at <= {as_of}
),
performance AS NOT MATERIALIZED (
    SELECT performance.* FROM public.performance CROSS JOIN complete_until
    WHERE use_case = {use_case} AND performance.outcome_date <= complete_until.outcome_date
),
estimates AS NOT MATERIALIZED (
    SELECT
        use_case, estimates.outcome_date, metric, estimated, low, high,
        CASE WHEN estimates.outcome_date <= complete_until.outcome_date THEN realised END AS realised,
        n, published, why
    FROM public.estimates CROSS JOIN complete_until
    WHERE use_case = {use_case} AND estimates.outcome_date <= {date}
),
retraining_decisions AS NOT MATERIALIZED (
    SELECT * FROM public.retraining_decisions WHERE use_case = {use_case} AND decision_date <= {date}
),
drift AS NOT MATERIALIZED (
    SELECT * FROM public.drift WHERE use_case = {use_case} AND decision_date <= {date}
),
promotions AS NOT MATERIALIZED (
    SELECT * FROM public.promotions WHERE use_case = {use_case} AND recorded_at <= {as_of}
),
acted_on AS NOT MATERIALIZED ({acted_on}),
alert_events AS NOT MATERIALIZED (
    SELECT * FROM public.alert_events WHERE use_case = {use_case} AND recorded_at <= {as_of}
),
lost_answers AS NOT MATERIALIZED (
    SELECT * FROM public.lost_answers WHERE recorded_at <= {as_of}
)"""
# The view's own query, on what was decided by a time.
_WORK_LIST: Final = """
    WITH predictions AS NOT MATERIALIZED (
        SELECT * FROM public.predictions WHERE use_case = {use_case} AND decision_time <= {moment}
    ), scorings AS NOT MATERIALIZED (
        SELECT * FROM public.scorings WHERE use_case = {use_case} AND decision_time <= {moment}
    )
    {view}"""
# The same of what was said by a time.
_ACTED_ON: Final = """
    WITH feedback AS NOT MATERIALIZED (SELECT * FROM public.feedback WHERE use_case = {use_case} AND at <= {as_of})
    {view}"""
# Rows that somebody made up, in place of the relations that PostgreSQL has.
_MADE_UP: Final = "{name} AS MATERIALIZED (SELECT * FROM json_populate_recordset(NULL::public.{table}, {rows}::json))"
_TABLES: Final = {
    "predictions": "predictions", "scorings": "scorings",
    "work_list": "work_list", "work_list_week_before": "work_list",
    "outcomes": "outcomes", "outcome_counts": "outcome_counts", "performance": "performance", "estimates": "estimates",
    "retraining_decisions": "retraining_decisions", "drift": "drift", "promotions": "promotions",
    "acted_on": "acted_on", "alert_events": "alert_events", "lost_answers": "lost_answers",
}  # fmt: skip
_GIVEN: Final = "{name} AS MATERIALIZED (SELECT * FROM json_to_recordset({rows}::json) AS rows({columns}))"
_TYPES: Final[dict[type, str]] = {
    str: "text", int: "bigint", float: "double precision", bool: "boolean", date: "date", datetime: "timestamptz",
}  # fmt: skip


Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Asked:
    """Of which use case, date and time a report is; `business_days_left` are those of the month after the date."""

    use_case: str
    day: date
    as_of: datetime
    currency: str
    capacity: int
    business_days_left: int


@dataclass(frozen=True, slots=True)
class Given:
    """Rows that a report reads as a relation: the type of each column by its name, and the rows."""

    columns: Mapping[str, type]
    rows: Rows


def report_rows(
    where: Engine | str, sql: str, asked: Asked, given: Mapping[str, Given], *, file: str
) -> list[dict[str, Any]]:
    """Return the rows of a report's SQL, in its order. It can only read, for two minutes at most.

    Raises:
        InputError: PostgreSQL refuses the SQL, or it gives more than `MOST_ROWS`; with the line of `file`.
    """
    with reading(where, asked, given, file=file, seconds=_SECONDS, most=MOST_ROWS) as rows:
        return rows(sql)


@contextmanager
def reading(
    where: Engine | str,
    asked: Asked,
    given: Mapping[str, Given],
    *,
    file: str,
    seconds: float,
    most: int,
    made_up: Mapping[str, Rows] | None = None,
) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """Yield a function that returns the rows of a SELECT, as `report_rows`, each for `seconds` and `most` rows at most.

    The transaction only reads, as `ml_assets_read` where this login may take that role. With `made_up` it does not see
    what the database holds, but these rows, by relation.
    """
    with begin(where) as connection:
        connection.execute(text("SET LOCAL transaction_read_only = on"))
        if connection.scalar(text(MAY_BE), {"role": READ}):
            connection.execute(text(f"SET LOCAL ROLE {READ}"))
        # A name that is not one of the relations is none: nothing is read that does not end at the time.
        connection.execute(text("SET LOCAL search_path = pg_catalog"))
        connection.execute(text("SET LOCAL timezone = 'UTC'"))
        connection.execute(text(f"SET LOCAL statement_timeout = {round(seconds * 1000)}"))
        # The last digit of a sum may depend on who adds; compiling takes longer than it saves.
        connection.execute(text("SET LOCAL max_parallel_workers_per_gather = 0"))
        connection.execute(text("SET LOCAL jit = off"))
        # A month's decisions are sorted in memory: a third faster than on disk.
        connection.execute(text("SET LOCAL work_mem = '64MB'"))
        driver: Any = connection.connection.driver_connection

        def rows(sql: str) -> list[dict[str, Any]]:
            # Without a limit a cross join would fill the memory of this process before its time is over.
            statement = f"{statement_of(connection, sql, asked, given, made_up)} LIMIT {most + 1}"
            try:
                # With binary results psycopg asks in the protocol that takes one statement and no second one behind it.
                with driver.cursor(binary=True, row_factory=dict_row) as cursor:
                    found: list[dict[str, Any]] = cursor.execute(statement).fetchall()
            except psycopg.Error as error:
                raise InputError(
                    str(error.diag.message_primary or error), where=_place(error, statement, sql, file)
                ) from error
            if len(found) > most:
                raise InputError(f"it gives more than {most:,} rows", where=file, to_do="add up, or add a LIMIT")
            return found

        yield rows


def statement_of(
    connection: Connection,
    sql: str,
    asked: Asked,
    given: Mapping[str, Given],
    made_up: Mapping[str, Rows] | None = None,
) -> str:
    """Return the whole statement: the relations as of the time, and the report's SQL as it stands in its file."""
    values: dict[str, Any] = {
        "use_case": asked.use_case,
        "date": asked.day,
        "month": asked.day.replace(day=1),
        "as_of": asked.as_of,
        "currency": asked.currency,
        "capacity": asked.capacity,
        "business_days_left": asked.business_days_left,
    }
    literals: dict[str, Any] = {name: compose.Literal(value) for name, value in values.items()}
    view = compose.SQL(view_sql("work_list"))

    def listed(moment: datetime) -> compose.Composed:
        return compose.SQL(_WORK_LIST).format(use_case=literals["use_case"], moment=compose.Literal(moment), view=view)

    parts = [compose.SQL(_REPORT).format(**literals)]
    if made_up is None:
        lists = {"work_list": listed(asked.as_of), "work_list_week_before": listed(asked.as_of - _WEEK)}
        acted_on = compose.SQL(_ACTED_ON).format(**literals, view=compose.SQL(view_sql("acted_on")))
        parts.append(compose.SQL(_AS_OF).format(**literals, **lists, acted_on=acted_on))
    else:
        parts += [
            compose.SQL(_MADE_UP).format(
                name=compose.Identifier(name), table=compose.Identifier(table), rows=_as_json(made_up.get(name, ()))
            )
            for name, table in _TABLES.items()
        ]
    for name, one in given.items():
        columns = compose.SQL(", ").join(
            compose.SQL("{} {}").format(compose.Identifier(column), compose.SQL(_TYPES[kind]))
            for column, kind in one.columns.items()
        )
        parts.append(
            compose.SQL(_GIVEN).format(name=compose.Identifier(name), rows=_as_json(one.rows), columns=columns)
        )
    with_ = compose.SQL("WITH {}\nSELECT * FROM (\n").format(compose.SQL(",\n").join(parts))
    return with_.as_string(connection.connection.driver_connection) + sql + "\n) AS rows"


def _as_json(rows: Rows) -> compose.Literal:
    return compose.Literal(json.dumps([dict(row) for row in rows], default=str))


def _place(error: psycopg.Error, statement: str, sql: str, file: str) -> str:
    """Return the file, with the line of its SQL that PostgreSQL has named."""
    position, before = int(error.diag.statement_position or 0), statement.rindex(sql)
    if position <= before:
        return file
    return f"{file}:{statement.count(chr(10), before, position - 1) + 1}"
