"""Models that have scored, by their runs, opened once: for stages that ask several, and for processes that stay."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from ml_assets.learning.reasons import Explainer
from ml_assets.learning.scorer import Scorer
from ml_assets.registry import ModelRegistry
from ml_assets.spec import UseCase

_KEPT: Final = 8


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """A model, and what finds its reasons; None where the use case declares no causes."""

    scorer: Scorer
    explainer: Explainer | None


class OpenedModels:
    """The models of a registry; those that were asked for last stay open. Threads may share it."""

    def __init__(self, registry: ModelRegistry, threads: int) -> None:
        self._registry, self._threads = registry, threads
        self._opened: OrderedDict[tuple[str, str], OpenedModel] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, usecase: UseCase, run_id: str) -> OpenedModel:
        """Return the model of a run.

        Raises:
            LookupError, FileNotFoundError: the registry has lost it.
        """
        key = (usecase.name, run_id)
        with self._lock:
            if key not in self._opened:
                scorer = Scorer.from_files(self._registry.download_model(run_id), threads=self._threads)
                explainer = Explainer(usecase, scorer) if usecase.causes else None
                self._opened[key] = OpenedModel(scorer, explainer)
            self._opened.move_to_end(key)
            if len(self._opened) > _KEPT:
                self._opened.popitem(last=False)
            return self._opened[key]
