"""The service while things fail around it, by the word of a client that notes each request and each answer."""

import json
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from ml_assets.lake import Lake, curated_table
from ml_assets.learning.scorer import Scorer
from ml_assets.local.embedded.broker import broker_for, stop_broker
from ml_assets.local.embedded.postgres import server_for, stop_server
from ml_assets.local.simulation.market import Market
from ml_assets.serving.history import LiveHistory
from ml_assets.serving.table import make_table
from ml_assets_tests.faults.proxy import DATA, Action, Fault, FaultProxy
from ml_assets_tests.s3 import S3Server
from ml_assets_tests.serving.filled import MARKET as SMALL_MARKET
from ml_assets_tests.serving.filled import NAME, SMALL, files_of, fill, last_afternoon, open_ledger, promote

MARKET = SMALL_MARKET
DRAIN_SECONDS = 2.0
FIELDS = sorted({*SMALL.event("settlement_instructions").contract.__struct_fields__} - {"event_id", "event_time"})


@dataclass
class Client:
    """Asks on a connection that it keeps, and holds each score against what the model gives for the live table."""

    port: int
    expected: dict[int, dict[str, float]]
    asked: int = 0
    answered: list[int] = field(default_factory=list)  # the version that answered, of each request
    decided: list[str] = field(default_factory=list)  # the decision time of each answer
    wrong: list[Any] = field(default_factory=list)
    elsewhere: threading.Event = field(default_factory=threading.Event)  # the balancer leads no new connection here
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        body = json.dumps({"entity_ids": sorted(self.expected[1])})
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        while not self.stop.is_set() and (connection.sock is not None or not self.elsewhere.is_set()):
            self.asked += 1
            try:
                connection.request("POST", f"/v1/{NAME}/score", body)
                response = connection.getresponse()
                self._judge(response.status, response.read())
            except (OSError, HTTPException) as error:
                self.wrong.append(repr(error))
                connection.close()
            time.sleep(0.01)
        connection.close()

    def _judge(self, status: int, read: bytes) -> None:
        said = json.loads(read)
        if status != 200:
            self.wrong.append((status, said))
            return
        version = said["model"]["version"]
        self.answered.append(version)
        self.decided += {one["decision_time"] for one in said["scores"]}
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


@contextmanager
def asking(service: Service, expected: dict[int, dict[str, float]]) -> Iterator[Client]:
    """A client that has been answered and goes on asking until the block ends."""
    client = Client(service.port, expected)
    thread = threading.Thread(target=client.run)
    thread.start()
    try:
        wait(lambda: len(client.answered) > 10)
        yield client
    finally:
        client.stop.set()
        thread.join(30)


@pytest.fixture
def lake(tmp_path: Path, market: Market, events: dict[str, pa.Table], market_references: dict[str, pa.Table]) -> Lake:
    return fill(tmp_path, market, events, market_references)


@pytest.fixture
def service(lake: Lake, tmp_path: Path, market: Market) -> Iterator[Service]:
    """A service on a database and a broker of its own, which can be stopped."""
    with started(tmp_path, market) as running:
        yield running


@contextmanager
def started(tmp_path: Path, market: Market) -> Iterator[Service]:
    home = Path(mkdtemp(prefix="ml_assets_"))  # not below pytest's: as root the server is another user
    url = server_for(home).url("ml_assets")
    open_ledger(url)
    promote(url, tmp_path, 1, "registered")
    promote(url, tmp_path, 1)
    bootstrap = broker_for(tmp_path / "broker")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    set_clock(tmp_path, last_afternoon(market))
    command = [sys.executable, "-m", "ml_assets_tests.serving.running", str(tmp_path), url, bootstrap]
    process = subprocess.Popen(
        [*command, str(port), str(DRAIN_SECONDS)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
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

    Before that the clock is set back by an hour, and put right: no decision is made of an hour ago.
    Each score that was ever said is the one that the model that said it gives; every answer was recorded, or counted
    as lost.
    """
    at = last_afternoon(market)
    expected = {version: scores_of(lake, tmp_path, version, at) for version in (1, 2)}
    wait(lambda: service.ready()[0] == 200, 90)
    clients = [Client(service.port, expected) for _ in range(3)]
    threads = [threading.Thread(target=client.run) for client in clients]
    for thread in threads:
        thread.start()
    try:
        wait(lambda: all(len(client.answered) > 10 for client in clients))

        set_clock(tmp_path, at - timedelta(hours=1))
        wait(lambda: "the clock was set back" in service.ready()[1].get("troubles", {}).get(NAME, ""))
        before = answers(clients)
        wait(lambda: answers(clients) > before + 30)
        set_clock(tmp_path, at)
        wait(lambda: service.ready()[0] == 200)

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
    assert {datetime.fromisoformat(when) for client in clients for when in client.decided} == {at}
    assert answers(clients) > before, "new connections were taken after SIGTERM"
    assert answers(clients) == sum(client.asked for client in clients) > 100
    count = json.loads(out)
    assert count["recorded"] + count["dropped"] == answers(clients) * len(expected[1])
    assert count["recorded"] > 0 < count["dropped"]


@pytest.mark.hostile
def test_a_store_that_hangs_stops_nobody_and_what_changed_while_it_failed_is_seen(
    s3: S3Server, bucket: str, tmp_path: Path, market: Market, events: dict[str, pa.Table],
    market_references: dict[str, pa.Table],
) -> None:  # fmt: skip
    """Guards changes that were noted and then could not be read: nobody looked for them again.

    The store hangs: all are answered with what there is. It lists a commit but gives no file of it: the same. Once it
    is well, what was in that commit is known: an instruction that was cancelled is no open decision any more.
    """
    lake = fill(tmp_path, market, events, market_references, s3.lake(f"{bucket}/lake"))
    at = last_afternoon(market)
    expected = {1: scores_of(lake, tmp_path, 1, at)}
    with FaultProxy(s3).running() as proxy:
        # By itself the store's client tries for three minutes, and then fails as here at once.
        options = proxy.server.lake_options | {"max_retries": "0"}
        (tmp_path / "lake.json").write_text(json.dumps([lake.root, options]))
        with started(tmp_path, market) as service:
            wait(lambda: service.ready()[0] == 200, 120)
            with asking(service, expected) as client:
                hangs = proxy.inject(Fault(Action.HANG))
                assert hangs.wait()
                before = answers([client])
                wait(lambda: answers([client]) > before + 30)
                proxy.lift_all()

                lost = proxy.inject(Fault(Action.UNAVAILABLE, path=DATA))
                cancelled = min(expected[1])
                cancel(lake, events["settlement_status"], cancelled, at - timedelta(hours=1))
                assert lost.wait()
                before = answers([client])
                wait(lambda: answers([client]) > before + 30)
            proxy.lift_all()
            assert client.wrong == []
            wait(lambda: still_open(service, sorted(expected[1])) == sorted({*expected[1]} - {cancelled}), 120)


@pytest.mark.hostile
def test_at_the_limit_of_its_memory_it_refuses_and_says_nothing_wrong(
    service: Service, lake: Lake, events: dict[str, pa.Table], tmp_path: Path, market: Market
) -> None:
    """Guards scores that are made of half of what they need; afterwards it goes on, or has ended and is started again.

    The process may have no more address space, as little later a container has no more memory.
    """
    expected = {1: scores_of(lake, tmp_path, 1, last_afternoon(market))}
    wait(lambda: service.ready()[0] == 200, 90)
    with asking(service, expected) as client:
        process = psutil.Process(service.process.pid)
        process.rlimit(psutil.RLIMIT_AS, (process.memory_info().vms - 2**20, resource.RLIM_INFINITY))
        said = [what_ifs(service, events, turn) for turn in range(10)]
        # What was asked about meanwhile was refused, and all that was said is right.
        refused = {status for status, _ in said} - {200}
        assert refused <= {0, 503}
        assert refused
        assert all(body.get("title", "Service Unavailable") == "Service Unavailable" for _, body in said)
        assert all(isinstance(one, str) for one in client.wrong), "a connection may be lost, and no score be wrong"
        if service.process.poll() is None:
            process.rlimit(psutil.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            before = len(client.answered)
            wait(lambda: len(client.answered) > before + 10)
            wait(lambda: what_ifs(service, events, 11)[0] == 200)
            assert service.ready()[0] == 200
        else:
            assert service.process.returncode != 0


def what_ifs(service: Service, events: dict[str, pa.Table], turn: int) -> tuple[int, dict[str, Any]]:
    """Ask about a hundred instructions that are not booked; return status and answer, 0 if there was none."""
    rows = events["settlement_instructions"].select(FIELDS).slice(0, 100).to_pylist()
    fields = [
        {**{name: str(value) if isinstance(value, date) else value for name, value in row.items()},
         "instruction_id": f"NEW-{turn}-{number}"}
        for number, row in enumerate(rows)
    ]  # fmt: skip
    connection = HTTPConnection("127.0.0.1", service.port, timeout=60)
    try:
        body = json.dumps({"what_if": [{"settlement_instructions": one} for one in fields]})
        connection.request("POST", f"/v1/{NAME}/score", body)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    except (OSError, HTTPException):
        return 0, {}
    finally:
        connection.close()


def scores_of(lake: Lake, home: Path, version: int, at: datetime) -> dict[str, float]:
    """What a model says of each open decision, by a live table that is made here."""
    history = LiveHistory(lake, SMALL)
    history.look(at.date())
    rows = make_table(SMALL, history.database(), at, history.newest).rows
    given = Scorer.from_files(files_of(home, f"run{version}").folder).score(rows)
    return dict(zip(rows["entity_id"].to_pylist(), given.tolist(), strict=True))


def cancel(lake: Lake, statuses: pa.Table, instruction: str, known: datetime) -> None:
    """Let a status of an instruction be known that cancels it, in the curated table of its business date."""
    event, row = SMALL.event("settlement_status"), statuses.slice(0, 1)
    said = {"instruction_id": instruction, "status": "CANC", "event_id": "it is cancelled", "event_time": known,
            "known_at": known, "broker_time": known, "business_date": known.date()}  # fmt: skip
    for name, value in said.items():
        at = row.schema.get_field_index(name)
        row = row.set_column(at, row.schema.field(name), pa.array([value], row.schema.field(name).type))
    there = lake.read(curated_table(SMALL, event), where=ds.field("business_date") == known.date())
    rows = pa.concat_tables([there.cast(statuses.schema), row])
    lake.replace(curated_table(SMALL, event), rows, "business_date", [known.date()])


def still_open(service: Service, entities: list[str]) -> list[str]:
    """Which of these are open decisions, by the service."""
    connection = HTTPConnection("127.0.0.1", service.port, timeout=20)
    connection.request("POST", f"/v1/{NAME}/score", json.dumps({"entity_ids": entities}))
    said = json.loads(connection.getresponse().read())
    connection.close()
    return sorted(one["entity_id"] for one in said["scores"])


def set_clock(home: Path, now: datetime) -> None:
    """Say what time it is to a service (`running`)."""
    (home / "next").write_text(now.isoformat())
    (home / "next").replace(home / "now")


def answers(clients: list[Client]) -> int:
    return sum(len(client.answered) for client in clients)


def wait(until: Any, seconds: float = 30) -> None:
    ends = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < ends
        time.sleep(0.02)
