"""Landing by the command line: a service with probes that ends in time, and dead letters from list to replay."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import date
from pathlib import Path
from uuid import uuid4

import pytest
import typer

from ml_assets.cli.main import main
from ml_assets.contracts import Event
from ml_assets.lake import Lake, landing_table
from ml_assets.landing.accounting import account
from ml_assets.landing.produce import ensure_topics, produce
from ml_assets.local.simulation.messages import Message
from ml_assets_tests import late_payments


@pytest.fixture
def name():
    """A use case of the test's own, since the tests share a broker."""
    return f"commanded_{uuid4().hex[:8]}"


@pytest.fixture
def topic(name):
    return f"{name}_invoices"


@pytest.fixture
def package(tmp_path, name):
    return late_payments.make_package(tmp_path, name)


@pytest.fixture
def send(broker, name, topic):
    """A function that sends invoices."""

    def send(*values):
        ensure_topics(broker, [topic, f"{name}_payments"])
        produce(broker, [Message(topic, b"k", value, 1_767_603_600_000) for value in values])

    return send


@pytest.fixture
def environment(tmp_path, broker, package, monkeypatch):
    found = {
        "ML_ASSETS_HOME": str(tmp_path / "home"),
        "ML_ASSETS_KAFKA_BOOTSTRAP": broker.bootstrap,
        "ML_ASSETS_LANDING_ASSIGNMENT": "all",
        "ML_ASSETS_LANDING_FLUSH_SECONDS": "0.5",
        "ML_ASSETS_USECASE_PACKAGES": json.dumps([package]),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
        "COLUMNS": "200",
        "NO_COLOR": "1",
    }
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return {**os.environ, **found}


@pytest.fixture
def say(environment, monkeypatch, capsys):
    """A function that runs a command in this process and returns what it printed, and its exit code."""

    def say(*arguments):
        monkeypatch.setattr(sys, "argv", ["ml-assets", *arguments])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = capsys.readouterr()
        return code, said.out + said.err

    return say


def invoice(number, **changes):
    fields = {
        "event_id": f"e{number}", "event_time": "2026-01-05T09:00:00Z", "invoice_id": f"i{number}", "payer": "P1",
        "amount": 10.0, "due_date": "2026-01-07",
    }  # fmt: skip
    return json.dumps({**fields, **changes}).encode()


class Mended(Event, frozen=True, kw_only=True):
    """The contract after the fix: an amount may come as text."""

    invoice_id: str
    payer: str
    amount: str | None
    due_date: date


def mend(monkeypatch, topic):
    from ml_assets import usecases

    discover = usecases.discover

    def mended(packages):
        (usecase,) = discover(packages)
        events = tuple(
            dataclasses.replace(event, contract=Mended) if event.topic == topic else event for event in usecase.events
        )
        return (dataclasses.replace(usecase, events=events),)

    monkeypatch.setattr(usecases, "discover", mended)


def test_history_that_was_landed_live_is_told_and_landed_anew(say, send, name, topic, monkeypatch):
    """Guards the first day: `land` without --replay made history known today, and there was no way back."""
    send(invoice(1), invoice(2))
    code, said = say("land")
    assert code == 0
    assert f"`ml-assets land-anew {name} --replay`" in " ".join(said.split())
    code, said = say("land", "--replay")
    assert code == 0
    assert "land-anew" not in said
    monkeypatch.setattr("typer.confirm", refuse)
    code, _ = say("land-anew", name, "--replay")
    assert code != 0
    code, said = say("land-anew", name, "--replay", "--yes")
    assert code == 0
    assert topic in said
    assert f"`ml-assets ingest {name} --from 2026-01-05 --to 2026-01-05`" in " ".join(said.split())
    lake = Lake(str(Path(os.environ["ML_ASSETS_HOME"]) / "lake"))
    times = lake.read(landing_table(topic), columns=["known_at"])["known_at"].to_pylist()
    assert [time.date() for time in times] == [date(2026, 1, 5)] * 2
    code, said = say("land-anew", "nothing")
    assert code != 0
    assert "there is no use case 'nothing'" in said


def refuse(*_, **__):
    """Say no to a question."""
    raise typer.Abort


def test_dead_letters_from_list_to_replay(say, send, topic, monkeypatch):
    """A producer sends amounts as text; the contract is mended to take them; the letters land, each once."""
    send(invoice(1), invoice(2, amount="10.50"), b"poison")
    code, said = say("land")
    assert code == 0
    assert topic in said
    code, said = say("dead-letters", "list")
    assert "Expected `float`, got `str`" in said
    assert "malformed" in said
    code, said = say("dead-letters", "show", topic)
    assert '"amount": "10.50"' in said
    assert "poison" in said
    assert f"2 dead letters of {topic} wait" in said
    assert f"0 dead letters of {topic} have landed" in say("dead-letters", "replay", topic)[1]

    mend(monkeypatch, topic)
    code, said = say("dead-letters", "replay", topic)
    assert f"1 dead letters of {topic} have landed" in said
    assert "1 still refused: JSON is malformed" in said
    assert "their dates are made again by the sensor" in said
    assert f"0 dead letters of {topic} have landed" in say("dead-letters", "replay", topic)[1]
    code, said = say("accounting")
    assert code == 0
    assert "no" not in [cell.strip() for line in said.splitlines() for cell in line.split("│")]


def test_commands_name_the_topics_that_there_are(say, name, topic):
    code, said = say("dead-letters", "show", "nothing")
    assert code == 1
    assert f"no use case reads the topic 'nothing'; the topics are {topic}, {name}_payments" in said


def test_a_loss_is_only_accepted_where_there_is_one(say, send, topic):
    send(invoice(1))
    say("land")
    code, said = say("accept-loss", topic, "0", "--reason", "a test")
    assert code == 1
    assert "nothing is lost" in said
    code, said = say("accept-loss", topic, "99", "--reason", "a test")
    assert "the broker has no partition 99" in said


def test_objects_need_a_place_to_be_in(say):
    code, said = say("land", "--connect")
    assert code == 1
    assert "ML_ASSETS_CONNECT_ROOT is not set" in said


def test_the_service_lands_tells_its_state_and_ends_within_ten_seconds(environment, send, topic, package, tmp_path):
    send(invoice(1), invoice(2))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("ml-assets")), "land", "--follow"]
    service = subprocess.Popen(
        command,
        env={**environment, "ML_ASSETS_METRICS_PORT": str(port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lake = Lake(str(tmp_path / "home" / "lake"))
    event = late_payments.usecase_of(package).event("invoices")

    def landed():
        return sum(part.landed for part in account(lake, event))

    def get(path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return answer.read().decode()
        except (urllib.error.URLError, ConnectionError):
            return ""

    try:
        wait_for(lambda: landed() == 2)
        wait_for(lambda: get("/ready") == "landing\n")
        assert get("/live") == "turning\n"
        assert f'lander_rows_total{{topic="{topic}"}} 2.0' in get("/metrics")
        sent_at = time.monotonic()
        send(invoice(3))
        wait_for(lambda: landed() == 3)
        assert time.monotonic() - sent_at < 20, "seconds at the default flush; the margin is for a busy machine"
    finally:
        service.send_signal(signal.SIGTERM)
        said, _ = service.communicate(timeout=10)
    assert service.returncode == 0, said
    assert "what was in memory is committed" in said


def wait_for(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)
