"""Models that have scored, by their runs, opened once: for stages that ask several, and for processes that stay."""

from __future__ import annotations

import threading
from collections import OrderedDict
from functools import cached_property
from typing import Final

from ml_assets.learning.reasons import Explainer
from ml_assets.learning.scorer import Scorer
from ml_assets.registry import ModelRegistry
from ml_assets.spec import UseCase

_KEPT: Final = 8


class OpenedModel:
    """A model, and what finds its reasons."""

    def __init__(self, usecase: UseCase, scorer: Scorer) -> None:
        self.scorer, self._usecase = scorer, usecase

    @cached_property
    def explainer(self) -> Explainer | None:
        """What finds the model's reasons, None where the use case declares no causes.

        Asked for only once its features are known to be those of the use case.
        """
        return Explainer(self._usecase, self.scorer) if self._usecase.causes else None


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
                self._opened[key] = OpenedModel(usecase, scorer)
            self._opened.move_to_end(key)
            if len(self._opened) > _KEPT:
                self._opened.popitem(last=False)
            return self._opened[key]
