"""What reports and alerts may be: one SELECT that only reads, and gives the same again for the same time. Pure.

PostgreSQL runs it in a transaction that cannot write. This refuses, with file and reason, what such a transaction
would still do: tell another answer tomorrow, read past the given time, or reach out of the database.
"""

from __future__ import annotations

import re
from typing import Final

from ml_assets.errors import InputError
from ml_assets.sql_head import code_of


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What gives another answer tomorrow, and what reads past the date.
_MOVING: Final = re.compile(
    r"\b(now|clock_timestamp|statement_timestamp|transaction_timestamp|timeofday|random|gen_random_uuid|current_date"
    r"|current_time|current_timestamp|localtime|localtimestamp|public|pg_catalog|tablesample)\b",
    re.IGNORECASE,
)
# Texts of these kinds end elsewhere than plain ones, so that what follows them would be judged wrongly.
_ODD_TEXT: Final = re.compile(r"\b(?:E|U&)'", re.IGNORECASE)
_CALL: Final = re.compile(r"(\bas\s+)?([\w.]+|\")\s*\(", re.IGNORECASE)
# What stands before a parenthesis and calls nothing.
_SYNTAX: Final = _words(
    """
    all and any array as between by case cube distinct else end except exists filter from grouping having in intersect
    interval is join lateral like materialized not on or order over partition rollup row select sets similar some then
    to union using values when where with within group numeric varchar char timestamp timestamptz time
    """
)
# Functions whose value follows from their arguments alone.
ALLOWED_FUNCTIONS: Final = _words(
    """
    abs array_agg array_length array_position avg bool_and bool_or btrim cardinality cast ceil ceiling coalesce
    concat concat_ws corr count cume_dist date_bin date_part date_trunc dense_rank div every exp extract first_value
    floor format generate_series greatest initcap isfinite json_array_elements json_array_length json_build_object
    json_object_keys jsonb_array_elements jsonb_array_elements_text jsonb_array_length jsonb_build_object jsonb_each
    jsonb_each_text jsonb_object_keys jsonb_typeof justify_hours lag last_value lead least left length ln log lower
    lpad ltrim make_date make_interval make_time max min mod mode nth_value ntile nullif num_nonnulls num_nulls
    percent_rank percentile_cont percentile_disc position power range_agg rank regexp_count regexp_match
    regexp_replace regr_intercept regr_slope replace reverse right round row_number rpad rtrim sign split_part sqrt
    starts_with stddev stddev_pop stddev_samp string_agg string_to_array strpos substr substring sum timezone to_char
    to_date to_json to_jsonb to_number to_timestamp translate trim trunc unnest upper var_pop var_samp variance
    width_bucket
    """
)


def refuse_unless_select(file: str, sql: str, what: str) -> None:
    """Do nothing if the SQL may be run as a `what`, such as a report.

    Raises:
        InputError: it names a clock, a schema, or a function that is not in the list, or it is several statements.
    """
    if odd := _ODD_TEXT.search(sql):
        raise InputError(f"it has a text that begins with {odd[0]}", where=file, to_do="write it as a plain text")
    code = code_of(sql)
    if moving := _MOVING.search(code):
        raise InputError(
            f"it names {moving[0]}: a {what} of a past date must come out the same again",
            where=file,
            to_do="take the date and the time from the relation `report`, and tables by their bare names",
        )
    if ";" in code:
        raise InputError(f"it has a semicolon; a {what} is one SELECT", where=file)
    if "$" in code:
        raise InputError("it has a $ outside of a text; texts stand between single quotes", where=file)
    if called := next((name for name in _called(sql) if name.lower() not in ALLOWED_FUNCTIONS), None):
        raise InputError(
            f"it calls {called}, which is not among the functions that a {what} may call",
            where=file,
            to_do="use one of ALLOWED_FUNCTIONS in sql_select.py, or add one whose value follows from its arguments",
        )


def _called(sql: str) -> list[str]:
    """Return the names before parentheses that are calls; the name after AS is a table's, with its columns."""
    # A quoted name stays as a mark, since it could be a function's.
    found = _CALL.findall(code_of(sql, quoted='"'))
    return [name for named_by_as, name in found if not named_by_as and name.lower() not in _SYNTAX]
