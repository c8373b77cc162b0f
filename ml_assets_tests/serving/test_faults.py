"""The service while things fail around it, by the word of a client that notes each request and each answer."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pyarrow as pa
import pytest

from ml_assets.lake import Lake
from ml_assets.learning.scorer import Scorer
from ml_assets.local.embedded.broker import broker_for, stop_broker
from ml_assets.local.embedded.postgres import server_for, stop_server
from ml_assets.local.simulation.market import Market
from ml_assets.serving.history import LiveHistory
from ml_assets.serving.table import make_table
from ml_assets_tests.serving.filled import MARKET as SMALL_MARKET
from ml_assets_tests.serving.filled import NAME, SMALL, files_of, fill, last_afternoon, open_ledger, promote

MARKET = SMALL_MARKET
DRAIN_SECONDS = 2.0


@dataclass
class Client:
    """Asks on a connection that it keeps, and holds each score against what the model gives for the live table."""

    port: int
    expected: dict[int, dict[str, float]]
    asked: int = 0
    answered: list[int] = field(default_factory=list)  # the version that answered, of each request
    wrong: list[Any] = field(default_factory=list)
    elsewhere: threading.Event = field(default_factory=threading.Event)  # the balancer leads no new connection here

    def run(self) -> None:
        body = json.dumps({"entity_ids": sorted(self.expected[1])})
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        while connection.sock is not None or not self.elsewhere.is_set():
            self.asked += 1
            try:
                connection.request("POST", f"/v1/{NAME}/score", body)
                response = connection.getresponse()
                self._judge(response.status, response.read())
            except (OSError, HTTPException) as error:
                self.wrong.append(repr(error))
                connection.close()
            time.sleep(0.01)

    def _judge(self, status: int, read: bytes) -> None:
        said = json.loads(read)
        if status != 200:
            self.wrong.append((status, said))
            return
        version = said["model"]["version"]
        self.answered.append(version)
        scores = {one["entity_id"]: one["probability"] for one in said["scores"]}
        if scores.keys() != self.expected[version].keys() or any(
            abs(p - self.expected[version][entity]) > 1e-9 for entity, p in scores.items()
        ):
            self.wrong.append((version, scores))


@dataclass
class Service:
    """The process, and what it runs on."""

    home: Path
    url: str
    port: int
    process: "subprocess.Popen[str]"

    def ready(self) -> tuple[int, dict[str, Any]]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/health/ready")
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        except OSError:
            return 0, {}
        finally:
            connection.close()


@pytest.fixture
def lake(tmp_path: Path, market: Market, events: dict[str, pa.Table], market_references: dict[str, pa.Table]) -> Lake:
    return fill(tmp_path, market, events, market_references)


@pytest.fixture
def service(lake: Lake, tmp_path: Path, market: Market) -> Iterator[Service]:
    """A service on a database and a broker of its own, which can be stopped."""
    home = Path(mkdtemp(prefix="ml_assets_"))  # not below pytest's: as root the server is another user
    url = server_for(home).url("ml_assets")
    open_ledger(url)
    promote(url, tmp_path, 1, "registered")
    promote(url, tmp_path, 1)
    bootstrap = broker_for(tmp_path / "broker")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    at = last_afternoon(market).isoformat()
    command = [sys.executable, "-m", "ml_assets_tests.serving.running", str(tmp_path), url, bootstrap]
    process = subprocess.Popen(
        [*command, str(port), at, str(DRAIN_SECONDS)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield Service(home, url, port, process)
    finally:
        process.kill()
        process.communicate()
        stop_broker(tmp_path / "broker")
        stop_server(home)


def test_no_request_is_lost_and_no_score_is_wrong_while_all_around_fails(
    service: Service, lake: Lake, tmp_path: Path, market: Market
) -> None:
    """The database is restarted, the broker goes for good, the champion changes, and SIGTERM comes under load.

    Each score that was ever said is the one that the model that said it gives; every answer was recorded, or counted
    as lost.
    """
    at = last_afternoon(market)
    history = LiveHistory(lake, SMALL)
    history.look(at.date())
    rows = make_table(SMALL, history.database(), at, history.newest).rows
    expected = {}
    for version in (1, 2):
        given = Scorer.from_files(files_of(tmp_path, f"run{version}").folder).score(rows)
        expected[version] = dict(zip(rows["entity_id"].to_pylist(), given.tolist(), strict=True))
    wait(lambda: service.ready()[0] == 200, 90)
    clients = [Client(service.port, expected) for _ in range(3)]
    threads = [threading.Thread(target=client.run) for client in clients]
    for thread in threads:
        thread.start()
    try:
        wait(lambda: all(len(client.answered) > 10 for client in clients))

        stop_server(service.home)
        wait(lambda: "database" in service.ready()[1].get("troubles", {}))
        before = answers(clients)
        wait(lambda: answers(clients) > before + 30)  # it goes on with what it has
        assert server_for(service.home).url("ml_assets") == service.url
        wait(lambda: service.ready()[0] == 200)

        promote(service.url, tmp_path, 2, "registered")
        promote(service.url, tmp_path, 2)
        wait(lambda: all(client.answered[-1] == 2 for client in clients))

        stop_broker(tmp_path / "broker")
        before = answers(clients)
        wait(lambda: answers(clients) > before + 30)

        service.process.send_signal(signal.SIGTERM)
        before = answers(clients)
        time.sleep(DRAIN_SECONDS / 2)
        for client in clients:
            client.elsewhere.set()
        for thread in threads:
            thread.join(30)
        out, err = service.process.communicate(timeout=30)
    finally:
        for client in clients:
            client.elsewhere.set()
    assert service.process.returncode == 0, err
    assert [client.wrong for client in clients] == [[], [], []]
    assert answers(clients) > before, "new connections were taken after SIGTERM"
    assert answers(clients) == sum(client.asked for client in clients) > 100
    count = json.loads(out)
    assert count["recorded"] + count["dropped"] == answers(clients) * len(expected[1])
    assert count["recorded"] > 0 < count["dropped"]


def answers(clients: list[Client]) -> int:
    return sum(len(client.answered) for client in clients)


def wait(until: Any, seconds: float = 30) -> None:
    ends = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < ends
        time.sleep(0.02)
