"""What a round sends, and what must become of each message: known here by construction, not by decoding."""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from ml_assets.contracts import Event
from ml_assets.spec import EventSpec, UseCase
from ml_assets.usecases.settlement_fails.usecase import USE_CASE

_NINE = datetime(2026, 1, 12, 9, tzinfo=UTC)
_LATEST_DAYS = 6
_WINDOW = 40  # places over which messages come out of order
_ISINS = ["US0378331005", "DE0007164600", "FR0000120271", "GB00B03MLX29"]


class Moved(Event, frozen=True, kw_only=True):
    """Securities moved."""

    isin: str
    side: Literal["DELI", "RECE"]
    quantity: int
    note: str | None = None


class Planned(NamedTuple):
    """A message to be sent, and what is to become of it: `event` in JSON's own types, or None for a dead letter."""

    topic: str
    key: bytes
    value: bytes | None
    timestamp_ms: int
    event: dict[str, Any] | None


def moved(topic: str) -> EventSpec:
    """Return the event of a topic; one rule sends some of its rows to quarantine."""
    return EventSpec(topic, topic, Moved, "Securities moved.", rules={"quantity is not positive": "quantity <= 0"})


def usecase_of(events: tuple[EventSpec, ...]) -> UseCase:
    """Return a use case that curates these events."""
    return replace(USE_CASE, name="faults", events=events, references=(), places=None)


def plan(topic: str, count: int, chance: random.Random, *, prefix: str = "") -> list[Planned]:
    """Return about `count` messages of a topic as a bad day brings them.

    Some are copies, some late by days, some out of order, some out of bounds in size, some break a rule, and some break
    the contract in every way of `POISON`.
    """
    sent: list[Planned] = []
    while len(sent) < count:
        number = f"{prefix}{len(sent)}"
        timestamp = _NINE + timedelta(seconds=len(sent))
        body = _body(number, timestamp, chance)
        draw = chance.random()
        if draw < 0.06 and sent:
            sent.append(chance.choice(sent)._replace(timestamp_ms=_milliseconds(timestamp)))
        elif draw < 0.12:
            sent.append(_message(topic, body | _late(body, chance), timestamp))
        elif draw < 0.15:
            sent.append(_message(topic, body | {"quantity": -body["quantity"]}, timestamp))
        elif draw < 0.155:
            sent.append(_message(topic, body | {"note": "n" * chance.randint(200_000, 900_000)}, timestamp))
        elif draw < 0.22:
            value = chance.choice(POISON)(body)
            sent.append(Planned(topic, number.encode(), value, _milliseconds(timestamp), None))
        else:
            sent.append(_message(topic, body, timestamp))
    return list(_disordered(sent, chance))


def _body(number: str, timestamp: datetime, chance: random.Random) -> dict[str, Any]:
    return {
        "event_id": number,
        "event_time": timestamp.isoformat(),
        "isin": chance.choice(_ISINS),
        "side": chance.choice(["DELI", "RECE"]),
        "quantity": chance.randint(1, 10**6),
        "note": chance.choice([None, "", "naïve 配達", 'quoted "note"']),
    }


def _late(body: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    happened = datetime.fromisoformat(body["event_time"]) - timedelta(days=chance.randint(1, _LATEST_DAYS))
    return {"event_time": happened.isoformat()}


def _message(topic: str, body: dict[str, Any], timestamp: datetime) -> Planned:
    return Planned(topic, body["event_id"].encode(), _json(body), _milliseconds(timestamp), body)


def _disordered(sent: list[Planned], chance: random.Random) -> Iterator[Planned]:
    places = [place + (chance.random() * _WINDOW if chance.random() < 0.2 else 0) for place in range(len(sent))]
    for place in sorted(range(len(sent)), key=places.__getitem__):
        yield sent[place]


def _without(body: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in names}


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


POISON: list[Callable[[dict[str, Any]], bytes | None]] = [
    lambda body: _json(body)[:-10],  # cut off
    lambda body: b"\xff\xfe" + _json(body),  # not UTF-8
    lambda body: b"",
    lambda body: None,  # a tombstone
    lambda body: b"[]",
    lambda body: _json(_without(body, "isin")),
    lambda body: _json(body | {"quantity": "many"}),
    lambda body: _json(body | {"side": "LEFT"}),
    lambda body: _json(body | {"event_time": "yesterday"}),
    lambda body: _json(body | {"quantity": 2**70}),  # a number that no column holds
    lambda body: _json(body | {"event_time": "0001-01-01T00:00:00+10:00"}),  # a time before the first year
    lambda body: _json(body | {"event_time": "9999-12-31T23:00:00-10:00"}),  # and after the last
    lambda body: _json(body).replace(b'"isin": "', b'"isin": "\\ud800'),  # half a character
    lambda body: _json(body)[:-1] + b', "more": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",  # deeper than any stack
]
"""Ways to break the contract."""
