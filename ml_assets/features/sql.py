"""What a use case's SQL asks for, as DuckDB's own parser reads it.

It decides which columns of the history are loaded, what may be kept from one decision time to the next, and whether a
file keeps to the tables that are cut at the as-of time. What is allowed is listed, by kind; all else is refused.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from ml_assets.errors import InputError
from ml_assets.features.functions import (
    CALL_BY_NAME,
    CLOCKS,
    ROWS_OF_ARGUMENTS,
    VARIABLE,
    known_functions,
    parser,
    steady,
)

# The variables that a decision time sets.
VARIABLES = ("as_of", "decision_date", "slot")
_QUERIES = frozenset({"RECURSIVE_CTE_NODE", "SELECT_NODE", "SET_OPERATION_NODE"})
_ROWS = frozenset({"BASE_TABLE", "EMPTY", "EXPRESSION_LIST", "JOIN", "PIVOT", "SUBQUERY", "TABLE_FUNCTION"})
_EXPRESSIONS = frozenset(
    {
        *("BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION"),
        *("LAMBDA", "OPERATOR", "POSITIONAL_REFERENCE", "STAR", "SUBQUERY", "TYPE", "WINDOW"),
    }
)
_JOINS = frozenset({"ASOF", "CROSS", "DEPENDENT", "NATURAL", "REGULAR"})


@dataclass(frozen=True)
class SqlUse:
    """What a SELECT names; all names are in lower case.

    `names` are those of tables, columns and functions. `tables` are read and not made by the SELECT itself: a name, or
    a path, whose parts are quoted where a dot is part of a name. `table_functions` are read too. With `whole_rows` it
    may depend on columns that it does not name, with `star` it may hand them on. With `moving` it may give something
    else another time, of the same rows. `variables` are those that it asks for. `refused` says what no SQL of a use
    case may do.
    """

    names: frozenset[str]
    tables: frozenset[str]
    table_functions: frozenset[str]
    whole_rows: bool
    star: bool
    moving: bool
    variables: frozenset[str]
    refused: tuple[str, ...]

    def refuse_foreign(self, allowed: Iterable[str], variables: Iterable[str] = VARIABLES) -> None:
        """Do nothing if it reads only these tables and variables, and its value follows from them alone.

        Raises:
            ValueError: it does not; with what it may read.
        """
        known = {name.lower() for name in allowed}
        foreign = sorted(self.tables - known)
        foreign += [f"{name}(...)" for name in sorted(self.table_functions - ROWS_OF_ARGUMENTS)]
        if foreign:
            raise InputError(
                f"reads {', '.join(foreign)}, which is not cut at the as-of time; "
                f"it may read {', '.join(sorted(known))}, by these names alone"
            )
        if self.refused:
            raise InputError(
                f"{'; '.join(self.refused)}: what it gives must follow from the rows known at the decision time, "
                "however often and whenever it runs"
            )
        if unknown := sorted(self.variables - set(variables)):
            raise InputError(
                f"asks for getvariable('{unknown[0]}'), which nothing sets here; there are {', '.join(variables)}"
            )


def statements_of(sql: str) -> list[Any]:
    """Return the syntax tree of one SELECT, as a list of one statement.

    Raises:
        ValueError: it is not SQL, or not one SELECT; with what DuckDB says of it.
    """
    with parser().cursor() as db:
        ((said,),) = db.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()
    parsed = json.loads(said)
    if parsed["error"]:
        at = parsed.get("position", "")
        line = f"\nLINE {sql.count(chr(10), 0, int(at)) + 1}:" if at.isdigit() else ""
        raise InputError(f"{parsed['error_message']}{line}")
    if len(parsed["statements"]) != 1:
        raise InputError(f"it must be one SELECT, and is {len(parsed['statements'])} statements")
    return list(parsed["statements"])


@cache
def use_of(sql: str) -> SqlUse:
    """Return what one SELECT asks for.

    Raises:
        ValueError: it is not SQL, or not one SELECT; with what DuckDB says of it.
    """
    statements = statements_of(sql)
    nodes = list(nodes_of(statements))
    tables = [node for node in nodes if node.get("type") == "BASE_TABLE"]
    called = {node["function"]["function_name"].lower() for node in nodes if node.get("type") == "TABLE_FUNCTION"}
    functions = {node["function_name"].lower() for node in _of_class(nodes, "FUNCTION")}
    # row_number() and its like are not on DuckDB's list of functions; aggregates over a window are.
    functions |= {node["function_name"].lower() for node in _of_class(nodes, "WINDOW")} & known_functions().keys()
    references = [[name.lower() for name in node["column_names"]] for node in _of_class(nodes, "COLUMN_REF")]
    columns = {name for names in references for name in names}
    columns |= {name.lower() for node in nodes for name in node.get("using_columns") or ()}
    stars = list(_of_class(nodes, "STAR"))
    sources = {node["alias"].lower() for node in nodes if node.get("alias") and "class" not in node}
    sources |= {node["table_name"].lower() for node in tables}
    rows_as_values = {names[0] for names in references if len(names) == 1} & sources
    compares = any(_compares_rows(node) for node in nodes)
    refused, variables = _refused(nodes)
    return SqlUse(
        names=frozenset(columns | functions | {node["table_name"].lower() for node in tables}),
        tables=frozenset(tables_read(statements)),
        table_functions=frozenset(called),
        whole_rows=bool(rows_as_values) or any(map(_needs_all, nodes)) or bool(stars and compares),
        star=bool(stars),
        moving=bool(columns & CLOCKS) or not all(map(_steady, functions)) or any(node.get("sample") for node in nodes),
        variables=frozenset(variables),
        refused=tuple(dict.fromkeys(refused)),
    )


def tables_read(tree: Any, made: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield the tables that a part of a syntax tree reads, besides those that are `made` where it stands.

    A common table expression is seen by those after it, by the SELECT that it belongs to and all inside that, and by
    nobody else; by itself only in the second part of a recursive one.
    """
    if isinstance(tree, list):
        for child in tree:
            yield from tables_read(child, made)
    if not isinstance(tree, dict):
        return
    for one in tree.get("cte_map", {}).get("map", ()):
        yield from tables_read(one["value"], made)
        made |= {one["key"].lower()}
    if tree.get("type") == "BASE_TABLE":
        path = [part.lower() for part in tree["qualified_name"]["path"]]
        if len(path) > 1 or path[0] not in made:
            yield path[0] if len(path) == 1 else ".".join(f'"{part}"' if "." in part else part for part in path)
    for key, child in tree.items():
        if key != "cte_map" and isinstance(child, dict | list):
            again = {tree["cte_name"].lower()} if key == "right" and tree.get("type") == "RECURSIVE_CTE_NODE" else set()
            yield from tables_read(child, made | again)


def _refused(nodes: Iterable[Mapping[str, Any]]) -> tuple[list[str], set[str]]:
    """Return what no SQL of a use case may do, and the variables that it asks for."""
    found: list[str] = []
    variables: set[str] = set()
    for node in nodes:
        kind = str(node.get("type", ""))
        if "class" in node:
            if node["class"] not in _EXPRESSIONS:
                found.append(f"has {_spoken(node['class'])}")
        elif kind.endswith("_NODE") or "cte_map" in node:
            if kind not in _QUERIES:
                found.append(f"has {_spoken(kind)}")
        elif "sample" in node and kind not in _ROWS:
            found.append(f"reads {_spoken(kind)}")
        if node.get("sample"):
            found.append("draws a sample")
        if node.get("at_clause"):
            found.append("reads a table AT another time")
        if "ref_type" in node and (node["ref_type"] not in _JOINS or node.get("nearest_approx")):
            found.append(f"has {_spoken(node['ref_type'])} join")
        if node.get("class") == "COLUMN_REF" and node["column_names"][-1].lower() in CLOCKS:
            found.append(f"asks for {node['column_names'][-1]}")
        if node.get("class") in ("FUNCTION", "WINDOW", "TYPE") and len(node["qualified_name"]["path"]) > 1:
            found.append(f"names {'.'.join(node['qualified_name']['path'])} by its schema")
        if node.get("class") in ("FUNCTION", "WINDOW"):
            _look_at_call(node, found, variables)
    return found, variables


def variables_of(tree: Any) -> frozenset[str]:
    """Return the variables that a part of a syntax tree asks for."""
    return frozenset(_refused(nodes_of(tree))[1])


def sql_of(statement: Mapping[str, Any]) -> str:
    """Return the SQL of a syntax tree, as `statements_of` returns one.

    Raises:
        ValueError: DuckDB cannot write it down so that it reads as the same again.
    """
    with parser().cursor() as db:
        ((said,),) = db.execute(
            "SELECT json_deserialize_sql(?::JSON)", [json.dumps({"error": False, "statements": [statement]})]
        ).fetchall()
    if _without_places(statements_of(said)) != _without_places([statement]):
        raise InputError(f"DuckDB writes it down as something else: {said}")
    return str(said)


def _without_places(tree: Any) -> Any:
    """Return a syntax tree without what says where in the text each part was."""
    if isinstance(tree, list):
        return [_without_places(child) for child in tree]
    if isinstance(tree, dict):
        return {key: _without_places(child) for key, child in tree.items() if not key.startswith("query_location")}
    return tree


def _look_at_call(call: Mapping[str, Any], found: list[str], variables: set[str]) -> None:
    name = call["function_name"].lower()
    arguments = [one["expression"] for one in call.get("arguments", ())]
    texts = [one["literal"]["text"] if one.get("literal", {}).get("kind") == "STRING" else None for one in arguments]
    if name == VARIABLE:
        if len(texts) == 1 and texts[0] is not None:
            variables.add(texts[0].lower())
        else:
            found.append("asks for a variable by a name that is not written out")
    elif name in CALL_BY_NAME:
        if len(texts) < 2 or texts[1] is None or not _steady(texts[1].lower()):
            found.append(f"calls {name}() with an aggregate that is not written out, or that changes")
    elif (name == "age" and len(arguments) == 1) or (
        not _steady(name) and (call["class"] == "FUNCTION" or name in known_functions())
    ):
        found.append(f"calls {name}()")


def _spoken(kind: str) -> str:
    return f"a {kind.removesuffix('_NODE').removesuffix('_REF').replace('_', ' ')}"


def nodes_of(tree: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every object of a syntax tree."""
    if isinstance(tree, dict):
        yield tree
    for child in tree.values() if isinstance(tree, dict) else tree:
        if isinstance(child, dict | list):
            yield from nodes_of(child)


def _of_class(nodes: Iterable[Mapping[str, Any]], name: str) -> Iterator[Mapping[str, Any]]:
    return (node for node in nodes if node.get("class") == name)


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


def _steady(function: str) -> bool:
    """Return whether a function gives the same for the same arguments; an unknown one counts as one that does not."""
    return steady(function, _steady_sql)


@cache
def _steady_sql(expression: str) -> bool:
    """Return whether the expression that a macro is short for depends on its arguments alone; it may raise an error."""
    use = use_of(f"SELECT {expression}")
    return not (use.tables or use.table_functions or set(use.refused) - {"calls error()"})
