"""The common table expressions of a SELECT: what each reads, and the same SELECT with some of them read from tables."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from ml_assets.features.sql import sql_of, statements_of, tables_read, variables_of

Node = Mapping[str, Any]


class Parts:
    """The outermost common table expressions of one SELECT by name, in lower case and in their order.

    Of each: the parts that it names itself (`parts`), the other tables that it names (`direct`), and the tables and
    variables that it asks for with all that these read in turn (`tables`, `variables`). The outermost SELECT names the
    parts `named` and the other tables `outermost`. SQL that DuckDB cannot write down again has no parts.

    Raises:
        ValueError: the SQL is not one SELECT.
    """

    def __init__(self, sql: str) -> None:
        (self._statement,) = statements_of(sql)
        self._sql = sql
        node: Node = self._statement["node"]
        self._nodes: dict[str, Node] = {one["key"].lower(): one for one in node.get("cte_map", {}).get("map", ())}
        try:
            sql_of(self._statement)
        except ValueError:
            self._nodes = {}
        self.parts: dict[str, frozenset[str]] = {}
        self.direct: dict[str, frozenset[str]] = {}
        self.tables: dict[str, frozenset[str]] = {}
        self.variables: dict[str, frozenset[str]] = {}
        for name, one in self._nodes.items():
            query = one["value"]["query_node"]
            read = frozenset(tables_read(query))
            self.parts[name] = mine = read & self.parts.keys()
            self.direct[name] = read - mine
            self.tables[name] = self.direct[name].union(*(self.tables[part] for part in mine))
            self.variables[name] = variables_of([query]).union(*(self.variables[part] for part in mine))
        read = frozenset(tables_read(_with(node, []) if self._nodes else node))
        self.named = read & self.parts.keys()
        self.outermost = read - self.named

    def alone(self, part: str, tables: Mapping[str, str]) -> str:
        """Return the SQL of the rows of a part; `tables` as in `reading`."""
        return self._written(_select_all(f'"{part}"'), frozenset({part}), tables)

    def reading(self, tables: Mapping[str, str]) -> str:
        """Return the SQL, in which parts are read from the tables that are named for them."""
        return self._written(self._statement["node"], self.named, tables) if tables else self._sql

    def _written(self, node: Node, named: frozenset[str], tables: Mapping[str, str]) -> str:
        needed, left = set[str](), list(named)
        while left:
            if (name := left.pop()) not in needed:
                needed.add(name)
                left += [] if name in tables else self.parts[name]
        given = [
            {**one, "value": {**one["value"], "query_node": _select_all(tables[name])}} if name in tables else one
            for name, one in self._nodes.items()
            if name in needed
        ]
        return sql_of({**self._statement, "node": _with(node, given)})


def _with(node: Node, parts: list[Node]) -> Node:
    return {**node, "cte_map": {"map": parts}}


@cache
def _select_all(table: str) -> Node:
    (statement,) = statements_of(f"SELECT * FROM {table}")
    node: Node = statement["node"]
    return node
