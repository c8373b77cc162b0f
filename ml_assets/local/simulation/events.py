"""The events of the simulated market: what happens to each instruction, and when it shows.

An instruction is traded and sent, sometimes on hold, to be released later; the depository tells whether it matches; it
settles before the cut-off of its settlement date, in part or not at all. Inventory and lending markets are published
every evening.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml_assets.local.simulation.identifiers import lei
from ml_assets.local.simulation.messages import Message
from ml_assets.local.simulation.outcomes import Flags, Instructions
from ml_assets.local.simulation.world import ASSET_CLASSES, PLACES, SETTLEMENT_DAYS, World

TOPICS = (
    "trades",
    "settlement_instructions",
    "settlement_status",
    "settlement_confirmations",
    "inventory_positions",
    "securities_lending",
)
HOUR = 3_600_000  # milliseconds

_OUR_LEI = lei(999_999)
_NOT_MATCHED = np.array(["CMIS", "DDAT", "DDEA", "DMON", "DEPT"])
_PARTIAL_SHARE = 0.2
_AGAINST_PAYMENT = 0.93
_ENDS_PER_DAY = 0.45  # of the fails that are still open
_LONGEST_FAIL = 5  # business days
_OF_FAILS = frozenset({"SF", "CP", "CL"})
_CONFIRMED = (8, 15.5)  # hours, before the first cut-off, 16:00

Times = NDArray[np.int64]


@dataclass(frozen=True)
class Stream:
    """The events of one kind: when each happens, in ms since 1970 UTC, and the rows of `columns` (n,), as payload.

    `key` names the column of the Kafka key; `prefix` begins the event ids.
    """

    topic: str
    key: str
    prefix: str
    times: Times
    columns: dict[str, NDArray[Any]]

    def until(self, end: int) -> "Stream":
        """Return what happens before a time, in order."""
        order = np.argsort(self.times, kind="stable")
        order = order[self.times[order] < end]
        columns = {name: values[order] for name, values in self.columns.items()}
        return Stream(self.topic, self.key, self.prefix, self.times[order], columns)


def streams(world: World, trades: Instructions, rng: np.random.Generator) -> list[Stream]:
    """Return the events of all topics, in the course of which what was hidden shows."""
    clock = _Clock(world.calendar, rng)
    traded = clock.between(trades.day, 7, 17)
    sent = _sent(trades, clock, traded)
    return [
        _trades(world, trades, traded),
        _instructions(world, trades, sent, rng),
        *_statuses(world, trades, clock, sent, rng),
        *_confirmations(world, trades, clock, rng),
        *_evenings(world, clock, rng),
    ]


def encode(
    stream: Stream, first: int, end: int, rng: np.random.Generator, happens: Flags | None = None
) -> Iterator[Message]:
    """Yield what happens in a span of time, in ms since 1970 UTC; the broker has it up to twenty seconds later.

    `happens` (n,) says which rows of the stream do; without it all.
    """
    low, high = np.searchsorted(stream.times, [first, end])
    rows_at = np.arange(low, high) if happens is None else low + np.flatnonzero(happens[low:high])
    times = stream.times[rows_at]
    known = np.minimum(times + rng.integers(200, 20_000, len(times)), end - 1).tolist()
    moments = np.datetime_as_string(times.astype("datetime64[ms]"), unit="ms").tolist()
    names = list(stream.columns)
    key = names.index(stream.key)
    rows = zip(*(stream.columns[name][rows_at].tolist() for name in names), strict=True)
    to_json = msgspec.json.Encoder().encode
    for number, row, moment, timestamp in zip(rows_at.tolist(), rows, moments, known, strict=True):
        payload = {"event_id": f"{stream.prefix}-{number}", "event_time": f"{moment}Z"}
        payload.update(zip(names, row, strict=True))
        yield Message(stream.topic, str(row[key]).encode(), to_json(payload), timestamp)


def settled_instead(world: World, trades: Instructions, rng: np.random.Generator) -> Stream:
    """Return the confirmations of what would have failed, had it settled in time: of whom somebody acted on."""
    ids, settlement_day = instruction_ids(world, trades)[trades.failed], trades.day[trades.failed] + SETTLEMENT_DAYS
    columns = {"instruction_id": ids, "quantity": trades.quantity[trades.failed]}
    times = _Clock(world.calendar, rng).between(settlement_day, *_CONFIRMED)
    return Stream("settlement_confirmations", "instruction_id", "CS", times, columns)


def tells_of_fail(stream: Stream) -> bool:
    """Return whether a stream has what comes of a fail alone: its status, and what settles in part or late."""
    return stream.prefix in _OF_FAILS


def instruction_ids(world: World, trades: Instructions) -> NDArray[Any]:
    """Return the id of each instruction: trade date and number."""
    days = np.array([day.strftime("%Y%m%d") for day in world.calendar])[trades.day]
    return np.char.add(np.char.add(days, "-"), np.char.zfill(np.arange(len(trades)).astype(str), 7))


def account(counterparty: int, place: int, *, is_old: bool) -> str:
    """Return the safekeeping account of a counterparty at a place of settlement, the former or the present one."""
    return f"SAFE{counterparty:03}{place}{1 if is_old else 2}"


def milliseconds(day: date) -> int:
    """Return the beginning of a day, in ms since 1970 UTC."""
    return int(datetime.combine(day, time(), tzinfo=UTC).timestamp() * 1000)


class _Clock:
    """Times on business days, which are numbered as in the calendar; hours are UTC."""

    def __init__(self, calendar: Sequence[date], rng: np.random.Generator) -> None:
        self._midnights = np.array([milliseconds(day) for day in calendar], dtype=np.int64)
        self._rng = rng

    def at(self, day: NDArray[np.int64], hours: NDArray[np.float64] | float) -> Times:
        """Return the times at these hours; from hour 24 on, of the next business day."""
        past_midnight = np.asarray(hours) >= 24
        start = np.where(past_midnight, self._midnights[day + 1] - 24 * HOUR, self._midnights[day])
        times: Times = start + (np.asarray(hours) * HOUR).astype(np.int64)
        return times

    def between(self, day: NDArray[np.int64], first: float, last: float) -> Times:
        """Return times drawn between two hours."""
        return self.at(day, self._rng.uniform(first, last, len(day)))

    def after(self, times: Times, first: float, last: float) -> Times:
        """Return random times, each a drawn number of hours after another."""
        later: Times = times + (self._rng.uniform(first, last, len(times)) * HOUR).astype(np.int64)
        return later


def _sent(trades: Instructions, clock: _Clock, traded: Times) -> Times:
    """Return when each instruction is sent: soon after the trade, a late one in the next morning."""
    sent: Times = np.where(trades.late, clock.between(trades.day + 1, 7, 9), clock.after(traded, 0.1, 1.9))
    return sent


def _trades(world: World, trades: Instructions, traded: Times) -> Stream:
    columns = {
        "uti": _utis(trades),
        "isin": _isins(world, trades),
        "mic": np.array([a.mic for a in ASSET_CLASSES])[world.asset_class[trades.security]],
        "side": np.where(trades.deliver, "SELL", "BUY"),
        "quantity": trades.quantity,
        "price": np.round(world.price[trades.security], 4),
        "counterparty_lei": _leis(world, trades),
    }
    return Stream("trades", "uti", "TR", traded, columns)


def _instructions(world: World, trades: Instructions, sent: Times, rng: np.random.Generator) -> Stream:
    business_days = np.array([day.isoformat() for day in world.calendar])
    place = world.place[trades.security]
    columns = {
        "instruction_id": instruction_ids(world, trades),
        "uti": _utis(trades),
        "isin": _isins(world, trades),
        "movement": np.where(trades.deliver, "DELI", "RECE"),
        "payment": np.where(rng.random(len(trades)) < _AGAINST_PAYMENT, "APMT", "FREE"),
        "quantity": trades.quantity,
        "amount": trades.amount,
        "counterparty_lei": _leis(world, trades),
        "account": _accounts(len(world.leis), trades.counterparty, place, trades.old_account),
        "pset": np.array(list(PLACES))[place],
        "trade_date": business_days[trades.day],
        "intended_settlement_date": business_days[trades.day + SETTLEMENT_DAYS],
    }
    return Stream("settlement_instructions", "instruction_id", "SI", sent, columns)


def _statuses(world: World, trades: Instructions, clock: _Clock, sent: Times, rng: np.random.Generator) -> list[Stream]:
    """Return matching, holds and releases, what is pending for want of inventory, and fails."""
    ids, n = instruction_ids(world, trades), len(trades)
    settlement_day = trades.day + SETTLEMENT_DAYS
    # The depository matches from the evening of the trade date until early in the afternoon of the next day.
    heard = np.where(trades.late, clock.between(trades.day + 1, 10, 14), clock.between(trades.day, 20.5, 38))
    resolved = trades.unmatched & ~trades.unmatched_at_settlement
    # Nobody tries to settle what is on hold.
    lacking = trades.deliver & trades.short & ~trades.unmatched_at_settlement & ~trades.on_hold_at_settlement
    released_early = trades.on_hold & ~trades.on_hold_day_before
    released_late = trades.on_hold_day_before & ~trades.on_hold_at_settlement

    def status(prefix: str, name: str, times: Times, rows: Flags, reasons: NDArray[Any] | str | None = None) -> Stream:
        columns = {
            "instruction_id": ids[rows],
            "status": np.full(int(rows.sum()), name),
            "reason": np.broadcast_to(np.array(reasons, dtype=object), (n,))[rows],
        }
        return Stream("settlement_status", "instruction_id", prefix, times[rows], columns)

    return [
        status("SM", "MACH", heard, ~trades.unmatched),
        status("SN", "NMAT", heard, trades.unmatched, _NOT_MATCHED[rng.integers(0, len(_NOT_MATCHED), n)]),
        status("SR", "MACH", clock.between(trades.day + 1, 16, 19), resolved),
        # It tells no more than the inventory of 19:00 does.
        status("SP", "PEND", clock.between(trades.day + 1, 19.1, 21), lacking, "LACK"),
        # The depository answers an instruction on hold at once, and a release with what it then waits for: its date.
        status("HH", "PEND", clock.after(sent, 0.02, 0.5), trades.on_hold, "PREA"),
        status("HE", "PEND", clock.between(trades.day + 1, 10, 14.5), released_early, "FUTU"),
        status("HL", "PEND", clock.between(trades.day + 1, 15.2, 19), released_late, "FUTU"),
        # The reason of a fail comes with the fail: using it for a prediction would be a leak.
        status(
            "SF", "PENF", clock.between(settlement_day, 17.2, 18.5), trades.failed, _fail_reasons(world, trades, rng)
        ),
    ]


def _fail_reasons(world: World, trades: Instructions, rng: np.random.Generator) -> NDArray[Any]:
    """Return why each instruction would be said to fail: (n,)."""
    n = len(trades)
    scarce = world.scarcity[trades.day, trades.security] > 0.5
    other = np.array(["PRCY", "LATE", "LINK"])[rng.integers(0, 3, n)]
    lacking = np.where(trades.deliver, "LACK", "CLAC")
    no_money = np.where(trades.deliver, "CMON", "MONY")
    usual = np.where(scarce | (rng.random(n) < 0.5), lacking, np.where(rng.random(n) < 0.4, no_money, other))
    return np.select([trades.on_hold_at_settlement, trades.unmatched_at_settlement], ["PREA", "CMIS"], usual)


def _confirmations(world: World, trades: Instructions, clock: _Clock, rng: np.random.Generator) -> list[Stream]:
    """Return what settles in time, what settles in part, and what settles some days late."""
    ids, n = instruction_ids(world, trades), len(trades)
    settlement_day = trades.day + SETTLEMENT_DAYS
    partial = trades.failed & (rng.random(n) < _PARTIAL_SHARE) & (trades.quantity > 1)
    part = trades.quantity // 2
    days_late = np.minimum(rng.geometric(_ENDS_PER_DAY, n), _LONGEST_FAIL)

    def confirmation(prefix: str, day: NDArray[np.int64], rows: Flags, quantity: NDArray[np.int64]) -> Stream:
        columns = {"instruction_id": ids[rows], "quantity": quantity[rows]}
        times = clock.between(day[rows], *_CONFIRMED)
        return Stream("settlement_confirmations", "instruction_id", prefix, times, columns)

    return [
        confirmation("CF", settlement_day, ~trades.failed, trades.quantity),
        confirmation("CP", settlement_day, partial, part),
        confirmation("CL", settlement_day + days_late, trades.failed, trades.quantity - np.where(partial, part, 0)),
    ]


def _evenings(world: World, clock: _Clock, rng: np.random.Generator) -> list[Stream]:
    """Return lending markets at 17:00 and inventory at 19:00, of each security and day."""
    days, securities = world.scarcity.shape
    day, security = (grid.ravel() for grid in np.meshgrid(np.arange(days), np.arange(securities), indexing="ij"))
    isins = np.array(world.isins)[security]
    scarcity, short = world.scarcity.ravel(), world.short.ravel()
    n = len(day)
    spare = rng.lognormal(8, 1, n).astype(np.int64) + 1
    basis_points = np.where(world.config.changed("feed", day), 0.01, 1.0)
    lending = {
        "isin": isins,
        "fee_bp": np.round(30 * np.exp(0.9 * scarcity + rng.normal(0, 0.05, n)) * basis_points, 2),
        "utilisation": np.round(1 / (1 + np.exp(-scarcity + rng.normal(0, 0.5, n))), 4),
    }
    inventory = {"isin": isins, "available_quantity": np.where(short, -spare, spare)}
    return [
        Stream("securities_lending", "isin", "SL", clock.at(day, 17), lending),
        Stream("inventory_positions", "isin", "IP", clock.at(day, 19), inventory),
    ]


def _isins(world: World, trades: Instructions) -> NDArray[Any]:
    return np.array(world.isins)[trades.security]


def _leis(world: World, trades: Instructions) -> NDArray[Any]:
    return np.array(world.leis)[trades.counterparty]


def _utis(trades: Instructions) -> NDArray[Any]:
    """Return unique transaction identifiers (ISO 23897): the LEI of the party that issues it, and a number."""
    return np.char.add(_OUR_LEI, np.char.zfill(np.arange(len(trades)).astype(str), 9))


def _accounts(parties: int, counterparty: NDArray[np.int64], place: NDArray[np.int64], old: Flags) -> NDArray[Any]:
    known = [account(c, p, is_old=o) for c in range(parties) for p in range(len(PLACES)) for o in (False, True)]
    accounts: NDArray[Any] = np.array(known)[(counterparty * len(PLACES) + place) * 2 + old]
    return accounts
