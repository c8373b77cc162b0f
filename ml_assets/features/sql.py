"""What a use case's SQL asks for, as DuckDB's own parser reads it.

It decides which columns of the history are loaded, what may be kept from one decision time to the next, and whether a
file keeps to the tables that are cut at the as-of time.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import duckdb

# Table functions that make rows out of their arguments alone.
_ROWS_OF_ARGUMENTS = frozenset({"generate_series", "json_each", "range", "unnest"})
# Functions that are written without parentheses, so that they look like columns.
_CLOCKS = frozenset({"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"})


@dataclass(frozen=True)
class SqlUse:
    """What a SELECT names; all names are in lower case.

    `names` are those of tables, columns and functions. `tables` are read and not made by the SELECT itself, as written
    (`invoices`, `other.invoices`); so are `table_functions`. With `whole_rows` it may depend on columns that it does
    not name, with `star` it may hand them on. With `moving` it may give something else another time, of the same rows.
    """

    names: frozenset[str]
    tables: frozenset[str]
    table_functions: frozenset[str]
    whole_rows: bool
    star: bool
    moving: bool

    def refuse_foreign(self, allowed: Iterable[str]) -> None:
        """Do nothing if it reads only these tables.

        Raises:
            ValueError: it reads others, or what a table function gives; with what it may read.
        """
        known = {name.lower() for name in allowed}
        foreign = sorted(self.tables - known)
        foreign += [f"{name}(...)" for name in sorted(self.table_functions - _ROWS_OF_ARGUMENTS)]
        if foreign:
            raise ValueError(
                f"reads {', '.join(foreign)}, which is not cut at the as-of time; "
                f"it may read {', '.join(sorted(known))}, by these names alone"
            )


@cache
def use_of(sql: str) -> SqlUse:
    """Return what one SELECT asks for.

    Raises:
        ValueError: it is not SQL, or not one SELECT; with what DuckDB says of it.
    """
    with _parser().cursor() as db:
        ((said,),) = db.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()
    parsed = json.loads(said)
    if parsed["error"]:
        raise ValueError(parsed["error_message"])
    if len(parsed["statements"]) != 1:
        raise ValueError(f"it must be one SELECT, and is {len(parsed['statements'])} statements")
    nodes = list(_nodes(parsed["statements"]))
    made = {one["key"].lower() for node in nodes for one in node.get("cte_map", {}).get("map", ())}
    tables = [node for node in nodes if node.get("type") == "BASE_TABLE"]
    written = {".".join(part.lower() for part in _path(node)) for node in tables}
    called = {node["function"]["function_name"].lower() for node in nodes if node.get("type") == "TABLE_FUNCTION"}
    functions = {node["function_name"].lower() for node in _of_class(nodes, "FUNCTION")}
    # row_number() and its like are not on DuckDB's list of functions; aggregates over a window are.
    functions |= {node["function_name"].lower() for node in _of_class(nodes, "WINDOW")} & _functions().keys()
    references = [[name.lower() for name in node["column_names"]] for node in _of_class(nodes, "COLUMN_REF")]
    columns = {name for names in references for name in names}
    columns |= {name.lower() for node in nodes for name in node.get("using_columns") or ()}
    stars = list(_of_class(nodes, "STAR"))
    sources = {node["alias"].lower() for node in nodes if node.get("alias") and "class" not in node}
    sources |= {node["table_name"].lower() for node in tables}
    rows_as_values = {names[0] for names in references if len(names) == 1} & sources
    compares = any(_compares_rows(node) for node in nodes)
    return SqlUse(
        names=frozenset(columns | functions | {node["table_name"].lower() for node in tables}),
        tables=frozenset(written - made),
        table_functions=frozenset(called),
        whole_rows=bool(rows_as_values) or any(map(_needs_all, nodes)) or bool(stars and compares),
        star=bool(stars),
        moving=bool(columns & _CLOCKS) or not all(map(_steady, functions)) or any(node.get("sample") for node in nodes),
    )


def _nodes(tree: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every object of a syntax tree."""
    if isinstance(tree, dict):
        yield tree
    for child in tree.values() if isinstance(tree, dict) else tree:
        if isinstance(child, dict | list):
            yield from _nodes(child)


def _of_class(nodes: Iterable[Mapping[str, Any]], name: str) -> Iterator[Mapping[str, Any]]:
    return (node for node in nodes if node.get("class") == name)


def _path(table: Mapping[str, Any]) -> list[str]:
    return [part for part in (table["catalog_name"], table["schema_name"], table["table_name"]) if part]


def _compares_rows(node: Mapping[str, Any]) -> bool:
    """Return whether which rows there are depends on all that they select."""
    return (
        node.get("type") in ("DISTINCT_MODIFIER", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE")
        or node.get("aggregate_handling", "STANDARD_HANDLING") != "STANDARD_HANDLING"
    )


def _needs_all(node: Mapping[str, Any]) -> bool:
    """Return whether a part depends on all columns of what it reads, although it names none of them."""
    return (
        node.get("ref_type") in ("NATURAL", "POSITIONAL")
        or node.get("type") in ("PIVOT", "SHOW_REF")
        or (node.get("class") == "STAR" and bool(node["columns"]))
    )


@cache
def _parser() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(":memory:", config={"threads": 1})


@cache
def _functions() -> Mapping[str, list[tuple[str | None, str | None]]]:
    """Return the stability of each function, or what it is short for if it is a macro, a pair a variant."""
    found: dict[str, list[tuple[str | None, str | None]]] = {}
    with _parser().cursor() as db:
        for name, stability, short_for in db.execute(
            "SELECT lower(function_name), stability, macro_definition FROM duckdb_functions() "
            "WHERE function_type IN ('scalar', 'aggregate', 'macro')"
        ).fetchall():
            found.setdefault(name, []).append((stability, short_for))
    return found


def _steady(function: str) -> bool:
    """Return whether a function gives the same for the same arguments; an unknown one counts as one that does not."""
    variants = _functions().get(function, [])
    return function in _ROWS_OF_ARGUMENTS or (
        bool(variants)
        and all(
            stability == "CONSISTENT" if short_for is None else not use_of(f"SELECT {short_for}").moving
            for stability, short_for in variants
        )
    )
