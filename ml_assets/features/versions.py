"""Which row of several of one key counts as of a time.

An event is curated by business date, and what a date holds does not depend on the dates that were made with it. So rows
of one key can lie in several dates: copies of an event that was sent again, or versions of a thing (`EventSpec.key`).
The choice is made here, where all dates meet and the as-of time is known: of copies the first that was known, of
versions the one that was published last. A row that was not known, or lies before what is looked back on, hides none.
"""

import duckdb

from ml_assets.spec import EventSpec

# The place of a row among those of its key; no view shows it.
_NUMBER = "version_number"


def number_versions(db: duckdb.DuckDBPyConnection, event: EventSpec, schema: str) -> str:
    """Number the rows of keys that have several; return what leaves out those that do not count, or nothing.

    Where no key has two rows, which is usual, the table stays as it is and a query costs nothing more.
    """
    rows, several, numbered = f"{schema}.{event.name}", f"{schema}.several_{event.name}", _numbered(event, schema)
    key = ", ".join(event.key)
    db.execute(f"CREATE TABLE {several} AS SELECT {key} FROM {rows} GROUP BY {key} HAVING count(*) > 1")
    if not db.execute(f"SELECT 1 FROM {several} LIMIT 1").fetchall():
        return ""
    columns = [column for column, *_ in db.execute(f"DESCRIBE {rows}").fetchall()]
    order = [column for column in ("known_at", "event_time", "kafka_offset", "event_id") if column in columns]
    if event.has_versions and "broker_time" in columns:
        # A first version that landed late does not replace the one that was published after it.
        order.insert(0, "coalesce(broker_time, known_at)")
    # The rest, so that there is one order.
    order += [f'"{column}"' for column in columns if column not in order]
    db.execute(
        f"CREATE TABLE {numbered} AS SELECT *, row_number() OVER (PARTITION BY {key} ORDER BY {', '.join(order)}) "
        f"AS {_NUMBER} FROM {rows} SEMI JOIN {several} USING ({key})"
    )
    db.execute(f"ALTER TABLE {rows} ADD COLUMN {_NUMBER} BIGINT")
    same = " AND ".join(f"several.{name} = {event.name}.{name}" for name in event.key)
    db.execute(f"DELETE FROM {rows} AS {event.name} USING {several} AS several WHERE {same}")
    db.execute(f"INSERT INTO {rows} BY NAME FROM {numbered}")
    return f" AND NOT EXISTS (SELECT 1 FROM {numbered} AS other WHERE {_replaces(event, event.name)})"


def numbered_columns(db: duckdb.DuckDBPyConnection, event: EventSpec, schema: str) -> str:
    """Return what a view of the event selects: all columns but the number of the version."""
    columns = {column for column, *_ in db.execute(f"DESCRIBE {schema}.{event.name}").fetchall()}
    return f"* EXCLUDE ({_NUMBER})" if _NUMBER in columns else "*"


def all_versions(db: duckdb.DuckDBPyConnection, event: EventSpec, schema: str, seen: str) -> str:
    """Return the SQL of `<event>_versions`: all rows that are `seen`, and when a newer version of each was known."""
    columns = numbered_columns(db, event, schema)
    rows = f"{schema}.{event.name} AS {event.name}"
    if columns == "*":
        return f"SELECT *, NULL::TIMESTAMPTZ AS replaced_at FROM {rows} WHERE {seen}"
    numbered = _numbered(event, schema)
    return (
        f"SELECT {columns} FROM {rows} LEFT JOIN (SELECT {', '.join(f'mine.{name}' for name in event.key)}, "
        f"mine.{_NUMBER}, min(other.known_at) AS replaced_at FROM {numbered} AS mine JOIN {numbered} AS other "
        f"ON {_replaces(event, 'mine')} GROUP BY ALL) AS replaced USING ({', '.join(event.key)}, {_NUMBER}) "
        f"WHERE {seen}"
    )


def _numbered(event: EventSpec, schema: str) -> str:
    return f"{schema}.numbered_{event.name}"


def _replaces(event: EventSpec, name: str) -> str:
    """Return the condition that the row `other` counts in the place of a row: it is seen too, and has precedence."""
    same = " AND ".join(f"other.{column} = {name}.{column}" for column in event.key)
    return (
        f"{same} AND other.{_NUMBER} {'>' if event.has_versions else '<'} {name}.{_NUMBER} "
        f"AND {seen_rows(event, 'other.')}"
    )


def seen_rows(event: EventSpec, prefix: str = "") -> str:
    """Return the condition that a row was known, and lies in what is looked back on."""
    return (
        f"{prefix}known_at <= getvariable('as_of') "
        # A date less a number is a date: only then are blocks of rows skipped by their range.
        f"AND {prefix}business_date >= getvariable('decision_date')::DATE - {event.history.days}"
    )
