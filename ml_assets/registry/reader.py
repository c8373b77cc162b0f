"""Versions and runs of models, read from MLflow's database by SQL: to import MLflow takes seconds.

Only for a registry whose backend is a database that we may read. Behind a server MLflow's own client is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sqlalchemy import Engine


_FOUND: Final = (
    "SELECT v.name, v.version, v.run_id, t.key, t.value FROM model_versions v "
    "LEFT JOIN model_version_tags t ON t.name = v.name AND t.version = v.version "
    "WHERE v.name = :model AND v.current_stage <> 'Deleted_Internal' AND v.version = ("
)
_BY_ALIAS: Final = _FOUND + "SELECT version FROM registered_model_aliases WHERE name = :model AND alias = :alias)"
_BY_RUN: Final = (
    _FOUND + "SELECT max(version) FROM model_versions WHERE name = :model "
    "AND run_id = :run_id AND current_stage <> 'Deleted_Internal')"
)

_RUN: Final = (
    "SELECT 'run' AS kind, run_uuid AS key, '' AS value FROM runs WHERE run_uuid = :run_id "
    "UNION ALL SELECT 'tag', key, value FROM tags WHERE run_uuid = :run_id "
    "UNION ALL SELECT 'param', key, value FROM params WHERE run_uuid = :run_id "
    "UNION ALL SELECT 'metric', key, CASE WHEN is_nan THEN 'nan' ELSE value::text END FROM latest_metrics "
    "WHERE run_uuid = :run_id"
)
_UNDEFINED_TABLE: Final = "42P01"


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A registered version of a use case's model."""

    name: str
    version: int
    run_id: str
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CandidateRun:
    """The MLflow run of a candidate."""

    run_id: str
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    params: Mapping[str, str] = field(default_factory=dict)


class DatabaseReader:
    """Reads versions and runs from the database `url` (`postgresql+psycopg2://...`), in which MLflow has its tables."""

    def __init__(self, url: str) -> None:
        self._url = url

    def by_alias(self, model: str, alias: str) -> ModelVersion | None:
        """Return the version that an alias stands for, or None; None too as long as MLflow has no tables there."""
        return self._one(_BY_ALIAS, model=model, alias=alias)

    def by_run(self, model: str, run_id: str) -> ModelVersion | None:
        """Return the version that is the model of a run, the newest if there are several, or None."""
        return self._one(_BY_RUN, model=model, run_id=run_id)

    def run(self, run_id: str) -> CandidateRun | None:
        """Return a run with its newest metrics, tags and parameters, or None."""
        if not (rows := self._rows(_RUN, run_id=run_id)):
            return None
        found: dict[str, dict[str, Any]] = {"metric": {}, "tag": {}, "param": {}, "run": {}}
        for row in rows:
            found[row.kind][row.key] = row.value
        metrics = {name: float(value) for name, value in found["metric"].items()}
        return CandidateRun(run_id, metrics, found["tag"], found["param"])

    @cached_property
    def _engine(self) -> Engine:
        from sqlalchemy import create_engine
        from sqlalchemy.pool import NullPool

        return create_engine(self._url, poolclass=NullPool)

    def _one(self, query: str, **wanted: Any) -> ModelVersion | None:
        if not (rows := self._rows(query, **wanted)):
            return None
        tags = {row.key: row.value for row in rows if row.key is not None}
        return ModelVersion(str(rows[0].name), int(rows[0].version), str(rows[0].run_id), tags)

    def _rows(self, query: str, **wanted: Any) -> Sequence[Any]:
        from sqlalchemy import text
        from sqlalchemy.exc import ProgrammingError

        try:
            with self._engine.connect() as connection:
                return connection.execute(text(query), wanted).all()
        except ProgrammingError as error:
            # psycopg2 and psycopg 3 name the code differently.
            if _UNDEFINED_TABLE in (getattr(error.orig, "pgcode", ""), getattr(error.orig, "sqlstate", "")):
                return []
            raise
