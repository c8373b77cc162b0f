"""Whether what a SQL file gives of a decision depends on the other decisions of the time.

Where it does not, a few decisions can be made without the others, and come out the same. DuckDB's parser reads the
file, and two forms are known to keep decisions apart; all else counts as comparing them:

- the outermost SELECT reads `decisions` first and joins other tables to it, without aggregates, windows, DISTINCT or
  LIMIT: `FROM decisions LEFT JOIN rates USING (counterparty_lei)`;
- a common table expression takes the rows of one table that belong to decisions and groups them by entity,
  `FROM events SEMI JOIN decisions ON decisions.entity_id = events.entity GROUP BY entity`, and the outermost SELECT
  joins it by that key.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from ml_assets.features.functions import aggregates
from ml_assets.features.sql import nodes_of, statements_of

_DECISIONS, _ENTITY = "decisions", "entity_id"
_KEEPING = frozenset({"ANTI", "INNER", "LEFT", "SEMI"})

Node = Mapping[str, Any]


@cache
def decides_alone(sql: str) -> bool:
    """Return whether the rows of one decision are known to be the same whichever other decisions there are.

    Raises:
        ValueError: it is not one SELECT.
    """
    (statement,) = statements_of(sql)
    select: Node = statement["node"]
    if not (references := _count(select, _DECISIONS)):
        return True
    if select["type"] != "SELECT_NODE":
        return False
    parts = select["cte_map"]["map"]
    if any(part["key"].lower() == _DECISIONS for part in parts):
        return False
    first, *joined = _joined(select["from_table"])
    if _table(first) != _DECISIONS or not _row_by_row(select):
        return False
    name = _name(first)
    keys = {part["key"].lower(): key for part in parts if (key := _grouped_by(part["value"]["query_node"]))}
    found = dict.fromkeys(keys, 0)
    for join in joined:
        if join["join_type"] not in _KEEPING or join["ref_type"] not in ("ASOF", "CROSS", "REGULAR"):
            return False
        if (table := _table(join["right"])) in keys:
            if join["join_type"] not in ("INNER", "LEFT") or not _equal(
                join["condition"], (_name(join["right"]), keys[table]), (name, _ENTITY)
            ):
                return False
            found[table] += 1
    return references == 1 + len(keys) and all(_count(select, table) == times for table, times in found.items())


def _joined(source: Node) -> list[Node]:
    """Return what a FROM begins with, and the joins to it in their order."""
    joins: list[Node] = []
    while source["type"] == "JOIN":
        joins.append(source)
        source = source["left"]
    return [source, *reversed(joins)]


def _row_by_row(select: Node) -> bool:
    """Return whether a SELECT gives rows for each row of its FROM, whatever the other rows are."""
    if not _is_plain(select) or select["group_expressions"] or select.get("having"):
        return False
    said = [*select["select_list"], *([select["where_clause"]] if select.get("where_clause") else [])]
    return not any(_mixes(node) for node in nodes_of(said))


def _is_plain(select: Node) -> bool:
    ordered = all(modifier["type"] == "ORDER_MODIFIER" for modifier in select["modifiers"])
    return ordered and not select.get("qualify") and select["aggregate_handling"] == "STANDARD_HANDLING"


def _mixes(node: Node) -> bool:
    kind = node.get("class")
    return kind == "WINDOW" or (kind == "FUNCTION" and node["function_name"].lower() in aggregates())


def _grouped_by(select: Node) -> str:
    """Return the column by which a SELECT groups the rows that belong to decisions; empty if it does not just that."""
    source = select.get("from_table") or {}
    if select["type"] != "SELECT_NODE" or source.get("type") != "JOIN" or source["join_type"] != "SEMI":
        return ""
    rows, decisions = source["left"], source["right"]
    if _table(decisions) != _DECISIONS or not _table(rows) or _count(select, _DECISIONS) != 1 or not _is_plain(select):
        return ""
    if len(select["group_sets"]) != 1 or any(node.get("class") == "WINDOW" for node in nodes_of([select])):
        return ""
    for group in select["group_expressions"]:
        column = _column(group)[-1:]
        if column and _equal(source["condition"], (_name(rows), column[0]), (_name(decisions), _ENTITY)):
            said = [one for one in select["select_list"] if column[0] in (one["alias"].lower(), *_column(one)[-1:])]
            plain = all(_column(one)[-1:] == column and one["alias"].lower() in ("", column[0]) for one in said)
            return column[0] if said and plain else ""
    return ""


def _equal(condition: Node | None, one: Sequence[str], other: Sequence[str]) -> bool:
    """Return whether a join's condition is that two columns, each given with its table, are equal."""
    if not condition or condition["type"] != "COMPARE_EQUAL":
        return False
    sides = {_column(condition["left"]), _column(condition["right"])}
    return sides == {tuple(one), tuple(other)}


def _column(expression: Node) -> tuple[str, ...]:
    return tuple(map(str.lower, expression["column_names"])) if expression["class"] == "COLUMN_REF" else ()


def _table(source: Node) -> str:
    """Return the name of a table that stands in a FROM; empty if it is something else."""
    if source["type"] != "BASE_TABLE" or len(source["qualified_name"]["path"]) != 1:
        return ""
    return str(source["table_name"]).lower()


def _name(source: Node) -> str:
    return str(source["alias"] or source["table_name"]).lower()


def _count(tree: Node, table: str) -> int:
    return sum(1 for _ in _references(tree, table))


def _references(tree: Node, table: str) -> Iterator[Node]:
    return (node for node in nodes_of([tree]) if node.get("type") == "BASE_TABLE" and _table(node) == table)
