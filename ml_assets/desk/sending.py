"""Sends what people say at the desk to Kafka, in a thread, for the use cases whose SQL reads it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Final

from confluent_kafka import KafkaException

from ml_assets.errors import ActionableError
from ml_assets.landing.kafka import KafkaConnection
from ml_assets.landing.produce import ensure_topics
from ml_assets.lifecycle.feedback import FeedbackOutbox, reads_feedback
from ml_assets.platform import Platform
from ml_assets.spec import UseCase

_EVERY_SECONDS: Final = 10.0
_LOG = logging.getLogger(__name__)


class Sending:
    """A thread that sends the ledger of each use case whose SQL reads it; `start` first, `stop` last.

    `kafka` returns where to, or None while no broker runs. What cannot be sent stays in the ledger, and is sent later.
    """

    def __init__(
        self,
        platform: Platform,
        usecases: Iterable[UseCase],
        kafka: Callable[[], KafkaConnection | None],
        *,
        every_seconds: float = _EVERY_SECONDS,
    ) -> None:
        self._platform, self._kafka, self._every = platform, kafka, every_seconds
        self._outboxes = {usecase.name: FeedbackOutbox(usecase) for usecase in usecases if reads_feedback(usecase)}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feedback", daemon=True)

    def start(self) -> None:
        """Begin, if any use case reads what people say."""
        if self._outboxes:
            self._thread.start()

    def stop(self) -> None:
        """End after the turn that runs."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def turn(self) -> int:
        """Send what waits, once; return how many lines were sent."""
        if (kafka := self._kafka()) is None:
            return 0
        if not self._platform.settings.kafka_bootstrap:
            ensure_topics(kafka, [outbox.topic for outbox in self._outboxes.values()])  # a bank's team makes its own
        engine = self._platform.engine
        return sum(outbox.send(self._platform.lake, engine, kafka) for outbox in self._outboxes.values())

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            try:
                self.turn()
            except (ActionableError, KafkaException) as error:
                _LOG.error("feedback waits in the ledger, and is sent to Kafka later: %s", error)
            except Exception:
                _LOG.exception("feedback waits in the ledger, and is sent to Kafka later")
