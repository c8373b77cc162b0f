"""Writes to PostgreSQL how many answers were not recorded, for a rule of alerts."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

from sqlalchemy import Engine

from ml_assets.database.lost_answers import add_lost_answers
from ml_assets.serving.recorder import Recorder

_LOG = logging.getLogger(__name__)


class LossesTold:
    """Writes the losses of a recorder since the last call; losses that cannot be written are written the next time."""

    def __init__(self, recorder: Recorder, engine: Callable[[], Engine], *, service: str = "") -> None:
        self._recorder, self._engine = recorder, engine
        self._service = service or socket.gethostname()
        self._failing = False

    def __call__(self) -> None:
        """Write the losses. If the database does not take them, the log says so once, and answers are not affected."""
        losses = self._recorder.take_losses()
        if not losses:
            return
        try:
            add_lost_answers(self._engine(), self._service, losses)
            self._failing = False
        except Exception as error:
            self._recorder.give_back(losses)
            if not self._failing:
                _LOG.warning("lost answers could not be written to the database: %s", str(error).splitlines()[0])
            self._failing = True
