"""Housekeeping of the whole lake: every table of every use case, and the versions that models and predictions need."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import Engine

from ml_assets.database.predictions import scored_data_versions
from ml_assets.lake import Lake, features_table, tables_of
from ml_assets.lake.maintenance import MaintenanceReport, maintain
from ml_assets.lifecycle.decided import made_from
from ml_assets.registry import ModelRegistry
from ml_assets.spec import UseCase

KEEP_HOURS = 7 * 24


def maintain_lake(
    lake: Lake,
    registry: ModelRegistry,
    engine: Engine,
    usecases: Sequence[UseCase],
    *,
    keep_hours: int = KEEP_HOURS,
    at_step: Callable[[str], None] = lambda _: None,
) -> list[MaintenanceReport]:
    """Compact and vacuum the tables of these use cases and return one report per table that exists.

    Versions that a registered model was trained on, or that a prediction was made from, stay readable.
    """
    return maintain(
        lake,
        tables_of(usecases),
        keep_hours=keep_hours,
        pinned=pinned_versions(lake, registry, engine, usecases),
        at_step=at_step,
    )


def pinned_versions(
    lake: Lake, registry: ModelRegistry, engine: Engine, usecases: Sequence[UseCase]
) -> Mapping[str, set[int]]:
    """Return, by table, the versions from which a registered model or a kept prediction was made.

    Of a prediction these are its features, and what its features were made from.
    """
    pinned: dict[str, set[int]] = defaultdict(set)
    for usecase in usecases:
        scored = scored_data_versions(engine, usecase.name)
        trained = [json.loads(text) for text in registry.trained_data_versions(usecase.name)]
        for versions in [*trained, *(versions for _, versions in scored)]:
            for table, version in versions.items():
                pinned[table].add(int(version))
        features = features_table(usecase)
        decided = [(day, int(versions[features])) for day, versions in scored if features in versions]
        for table, found in made_from(lake, usecase, decided).items():
            pinned[table] |= found
    return pinned
