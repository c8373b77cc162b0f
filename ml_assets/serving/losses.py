"""Answers that were lost are told to PostgreSQL, where a rule of alerts sees them."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

from sqlalchemy import Engine

from ml_assets.database.lost_answers import add_lost_answers
from ml_assets.serving.recorder import Recorder

_LOG = logging.getLogger(__name__)


class LossesTold:
    """Tells what a recorder has lost since it was last asked; what cannot be told now is told the next time."""

    def __init__(self, recorder: Recorder, engine: Callable[[], Engine], *, service: str = "") -> None:
        self._recorder, self._engine = recorder, engine
        self._service = service or socket.gethostname()
        self._failing = False

    def __call__(self) -> None:
        """Tell it. A database that does not take it hinders nobody: the log says so once."""
        losses = self._recorder.take_losses()
        if not losses:
            return
        try:
            add_lost_answers(self._engine(), self._service, losses)
            self._failing = False
        except Exception as error:
            self._recorder.give_back(losses)
            if not self._failing:
                _LOG.warning("that answers were lost could not be told to the database: %s", str(error).splitlines()[0])
            self._failing = True
