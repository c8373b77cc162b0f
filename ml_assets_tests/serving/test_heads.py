"""Clients that say nothing, or never come to an end of saying it, hinder nobody and are sent away."""

import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection

import psutil
import pytest

from ml_assets.serving.heads import HEAD_SECONDS, MOST_HEAD_BYTES

pytestmark = pytest.mark.hostile

CLIENTS = 10_000
SERVER = """
import sys
from ml_assets.lake import Lake
from ml_assets.serving.app import build_app
from ml_assets.serving.drain import DrainingServer
from ml_assets.serving.scoring import Scoring
app = build_app(Scoring(Lake("/nowhere"), None, [], None), run=False)
DrainingServer(app, drain_seconds=0, host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", access_log=False).run()
"""


@pytest.fixture(scope="module")
def service() -> Iterator[tuple[int, psutil.Process]]:
    """The service without a use case, in a process of its own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < CLIENTS + 1000:
        pytest.skip(f"a process may open {hard} files here: too few for {CLIENTS} connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(port)], stderr=subprocess.DEVNULL)
    try:
        ends = time.monotonic() + 120
        while not _is_open(port):
            assert time.monotonic() < ends
            time.sleep(0.1)
        yield port, psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def status(port: int) -> int:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/health/live")
    found = connection.getresponse().status
    connection.close()
    return found


def test_ten_thousand_clients_that_say_nothing_hinder_nobody_and_go(service: tuple[int, psutil.Process]) -> None:
    """Guards a service whose connections all wait for heads that never come."""
    port, process = service
    assert status(port) == 200
    before, files = process.memory_info().rss, process.num_fds()
    with ExitStack() as opened:
        clients = []
        for number in range(CLIENTS):
            client = opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            if number % 2:
                client.sendall(b"POST /v1/settlement_fails/score HTTP/1.1\r\nhost: a\r\nx-slow: ")
            clients.append(client)
        assert status(port) == 200
        assert process.memory_info().rss - before < 400 * 1024 * 1024
        for client in clients:
            assert client.recv(1) == b""
    assert status(port) == 200
    ends = time.monotonic() + 10
    while process.num_fds() > files + 10:
        assert time.monotonic() < ends
        time.sleep(0.1)


def test_a_head_without_an_end_is_cut_off(service: tuple[int, psutil.Process]) -> None:
    """Guards memory, and a client that sends a byte now and then to stay."""
    port, _ = service
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client, pytest.raises(OSError):  # noqa: PT011, PT012
        client.sendall(b"GET /health/live HTTP/1.1\r\nhost: a\r\n")
        for _ in range(2 * MOST_HEAD_BYTES // 1024):
            client.sendall(b"x-more: " + b"a" * 1014 + b"\r\n")
            time.sleep(0.001)
        if client.recv(1) == b"":
            raise ConnectionResetError
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=HEAD_SECONDS + 60) as client:
        client.settimeout(0.5)
        client.sendall(b"GET /health/live HTTP/1.1\r\nx-slow: ")
        while True:
            assert time.monotonic() - begun < HEAD_SECONDS + 60
            try:
                client.sendall(b"a")
                if client.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
    assert time.monotonic() - begun > HEAD_SECONDS / 2


def test_one_connection_serves_many_requests(service: tuple[int, psutil.Process]) -> None:
    """Guards the timer of a head, which must not end a connection that is well."""
    port, _ = service
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    ends = time.monotonic() + HEAD_SECONDS + 2
    while time.monotonic() < ends:
        connection.request("GET", "/health/live")
        assert connection.getresponse().read() == b'{"live":true}'
        time.sleep(0.2)
    connection.close()
