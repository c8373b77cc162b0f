"""The service on a real socket, for tests: what it runs on, and a client that asks it."""

import json
import threading
import time as clock
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pyarrow as pa
import uvicorn
from fastapi import FastAPI

from ml_assets.answers import ServedScore
from ml_assets.landing.kafka import KafkaConnection
from ml_assets.serving.recorder import Recorder
from ml_assets.serving.scoring import Scoring
from ml_assets.spec import UseCase
from ml_assets_tests.serving.filled import NAME, promote


class Kept:
    """A recorder that keeps what it is told."""

    def __init__(self) -> None:
        self.answers: list[ServedScore] = []

    def record(self, answer: ServedScore) -> None:
        self.answers.append(answer)


class KeptEvents(Recorder):
    """A recorder of events that keeps what it is told, as if the broker had it at once."""

    def __init__(self) -> None:
        super().__init__(KafkaConnection("127.0.0.1:1"))
        self.kept: list[Any] = []

    def record(self, topic: str, key: str, event: Any, settled: Any = None) -> bool:
        self.kept.append(event)
        settled(True)
        return True


@dataclass
class Bench:
    """The service, and what it runs on."""

    port: int
    scoring: Scoring
    usecase: UseCase
    models: Path
    url: str
    recorder: Kept
    changes: KeptEvents
    shadow: KeptEvents
    at: datetime
    events: dict[str, pa.Table]

    def ask(
        self, path: str, body: Any = None, headers: dict[str, str] | None = None, port: int = 0
    ) -> tuple[int, dict[str, Any]]:
        connection = HTTPConnection("127.0.0.1", port or self.port, timeout=60)
        raw = body if isinstance(body, bytes) else None if body is None else json.dumps(body)
        connection.request("GET" if raw is None else "POST", path, raw, headers or {})
        response = connection.getresponse()
        said = response.read()
        connection.close()
        found = json.loads(said) if "json" in response.getheader("content-type", "") else {"text": said.decode()}
        return response.status, {**found, "_type": response.getheader("content-type")}

    def promote(self, version: int, action: str = "promoted", approved: str = "", **said: Any) -> None:
        promote(self.url, self.models.parent, version, action, approved, **said)

    def entities(self) -> list[str]:
        return list(self.scoring.state(NAME).table.index)


@contextmanager
def listening(app: FastAPI) -> Iterator[int]:
    """Serve an app on a port of its own, which is given."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", access_log=False, http="httptools"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait(lambda: server.started)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(60)


def wait(until: Any, seconds: float = 120) -> None:
    ends = clock.monotonic() + seconds
    while not until():
        assert clock.monotonic() < ends
        clock.sleep(0.05)
