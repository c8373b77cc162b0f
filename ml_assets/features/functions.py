"""Which DuckDB functions the SQL of a use case may call: those whose value follows from their arguments alone.

DuckDB says for each function whether the same arguments always give the same value. For a few functions this is wrong,
and many functions describe the database instead of the rows: these are listed here. Macros are judged by what they
are short for.
"""

from collections.abc import Callable, Mapping
from functools import cache

import duckdb

from ml_assets.duck import open_duckdb

# Table functions that make rows out of their arguments alone.
ROWS_OF_ARGUMENTS = frozenset({"generate_series", "json_each", "range", "unnest"})
# Functions that are written without parentheses and so look like columns.
CLOCKS = frozenset({"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"})
# Functions that call the aggregate that their second argument names.
CALL_BY_NAME = frozenset({"aggregate", "array_aggr", "array_aggregate", "list_aggr", "list_aggregate"})
VARIABLE = "getvariable"

_UNSTEADY = frozenset(
    {
        "approx_quantile",  # depends on how the rows are cut among threads
        "current_localtime",
        "current_localtimestamp",
        "invoke",
        "parse_duckdb_log_message",
        "reservoir_quantile",  # draws a sample
        "version",
    }
)
# Functions that describe the database: its tables, plans, privileges, settings, addresses.
_OF_THE_DATABASE = (
    "__internal",
    "col_description",
    "current_",
    "format_pg_type",
    "format_type",
    "get_block_size",
    "has_",
    "inet_",
    "json_deserialize_sql",
    "json_serialize_",
    "map_to_pg_oid",
    "obj_description",
    "pg_",
    "session_user",
    "shobj_description",
    "user",
)
_HARMLESS_OF_THOSE = frozenset({"pg_size_pretty", "pg_typeof"})


def steady(function: str, is_steady_sql: Callable[[str], bool]) -> bool:
    """Return whether the same arguments always give the same value; False for an unknown function.

    `is_steady_sql` judges the expression that a macro is short for.
    """
    if function in ROWS_OF_ARGUMENTS:
        return True
    if function in _UNSTEADY or (function.startswith(_OF_THE_DATABASE) and function not in _HARMLESS_OF_THOSE):
        return False
    variants = known_functions().get(function, [])
    return bool(variants) and all(
        stability == "CONSISTENT" if short_for is None else is_steady_sql(short_for)
        for stability, short_for in variants
    )


@cache
def known_functions() -> Mapping[str, list[tuple[str | None, str | None]]]:
    """Return, for each function, one pair per variant: its stability, or the expression if it is a macro."""
    found: dict[str, list[tuple[str | None, str | None]]] = {}
    with parser().cursor() as db:
        for name, stability, short_for in db.execute(
            "SELECT lower(function_name), stability, macro_definition FROM duckdb_functions() "
            "WHERE function_type IN ('scalar', 'aggregate', 'macro')"
        ).fetchall():
            found.setdefault(name, []).append((stability, short_for))
    return found


@cache
def aggregates() -> frozenset[str]:
    """Return the names of all aggregate functions; some are of scalar functions too."""
    with parser().cursor() as db:
        found = db.execute("SELECT lower(function_name) FROM duckdb_functions() WHERE function_type = 'aggregate'")
        return frozenset(name for (name,) in found.fetchall())


@cache
def parser() -> duckdb.DuckDBPyConnection:
    """Return an empty database: DuckDB's parser and its list of functions."""
    return open_duckdb(1)
