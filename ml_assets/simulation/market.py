"""The simulated market: its events in the order in which they become known, its reference files and its truth."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ml_assets.simulation.dirt import Soiled, soil
from ml_assets.simulation.messages import Message
from ml_assets.simulation.outcomes import Flags, Instructions, draw_instructions
from ml_assets.simulation.world import (
    ASSET_CLASSES,
    COUNTRIES,
    PLACES,
    SETTLEMENT_DAYS,
    MarketConfig,
    World,
    make_world,
)

__all__ = ["Market", "MarketConfig", "simulate"]

# Slot: decision time, and business days from trade date to decision date.
SLOTS = {"end_of_trade_date": (time(20), 0), "isd_minus_1": (time(15), 1), "isd_morning": (time(7), 2)}
TOPICS = (
    "trades",
    "settlement_instructions",
    "settlement_status",
    "settlement_confirmations",
    "inventory_positions",
    "securities_lending",
)
_HOUR = 3_600_000  # milliseconds
_NOT_MATCHED = np.array(["CMIS", "DDAT", "DDEA", "DMON", "DEPT"])
_PARTIAL_SHARE = 0.2


def simulate(config: MarketConfig) -> "Market":
    """Return the market of a configuration; the same configuration gives the same market."""
    rng = np.random.default_rng(config.seed)
    world = make_world(config, rng)
    return Market(config, world, draw_instructions(world, rng))


@dataclass(frozen=True)
class Stream:
    """The events of one topic: when each happens, in ms since 1970 UTC, and the rows of `columns` (n,), as payload."""

    topic: str
    key: str
    prefix: str
    times: NDArray[np.int64]
    columns: dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Market:
    """A simulated market. Nothing but `write_truth` tells the probabilities."""

    config: MarketConfig
    world: World
    instructions: Instructions

    topics = TOPICS

    @property
    def message_count(self) -> int:
        """About the number of messages: dirt adds a few."""
        return sum(len(stream.times) for stream in self._streams)

    def messages(self) -> Iterator[Message]:
        """Yield the messages in the order in which the broker gets them, a day at a time."""
        rng = np.random.default_rng([self.config.seed, 1])
        carried: list[Message] = []
        for day in range(self.config.days):
            first = _milliseconds(self.world.calendar[day])
            # Weekends belong to the day before; the last day ends at midnight.
            last_day = day + 1 == self.config.days
            end = first + 24 * _HOUR if last_day else _milliseconds(self.world.calendar[day + 1])
            clean = [message for stream in self._streams for message in _encode(stream, first, end, rng)]
            soiled: Soiled = soil(clean, self.config.dirty, rng, end)
            today = sorted([*carried, *soiled.today], key=lambda message: message.timestamp_ms)
            yield from (today[place] for place in soiled.disorder(len(today), rng))
            carried = soiled.later

    @cached_property
    def _streams(self) -> list[Stream]:
        """All events, with time; those after the end of the last day have not happened."""
        streams = _streams(self.world, self.instructions, np.random.default_rng([self.config.seed, 2]))
        end = _milliseconds(self.world.calendar[self.config.days - 1]) + 24 * _HOUR
        return [_until(stream, end) for stream in streams]

    def write_reference(self, root: str | Path) -> None:
        """Write the reference files to `<root>/settlement_fails/<reference>/<published>.csv`."""
        published = self.config.start - timedelta(days=30)
        folder = Path(root) / "settlement_fails"
        for name, rows in _reference_rows(self.world).items():
            path = folder / name / f"{published}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w", encoding="utf-8", newline="") as file:
                stamped = [{"valid_from": published, **row, "published_at": f"{published}T06:00:00Z"} for row in rows]
                writer = csv.DictWriter(file, list(stamped[0]))
                writer.writeheader()
                writer.writerows(stamped)

    def write_truth(self, path: Path) -> None:
        """Write the true probability of a fail at each decision slot, and the outcome, as Parquet."""
        path.parent.mkdir(parents=True, exist_ok=True)
        ids = _instruction_ids(self.world, self.instructions)
        calendar = np.array(self.world.calendar, dtype="datetime64[D]")
        trade_day = self.instructions.day
        parts = []
        for slot, (at, days) in SLOTS.items():
            decided = calendar[trade_day + days].astype("datetime64[ms]") + np.timedelta64(at.hour, "h")
            # A late instruction is not there yet in the evening of its trade date.
            there = ~self.instructions.late if slot == "end_of_trade_date" else np.ones(len(trade_day), dtype=bool)
            parts.append(
                pa.table(
                    {
                        "entity_id": pa.array(ids[there]),
                        "slot": pa.array([slot] * int(there.sum())),
                        "decision_time": pa.array(decided[there]).cast(pa.timestamp("us", tz="UTC")),
                        "outcome_date": pa.array(calendar[trade_day + SETTLEMENT_DAYS][there]),
                        "probability": pa.array(self.instructions.probability[slot][there]),
                        "outcome": pa.array(self.instructions.failed[there].astype(np.int8)),
                    }
                )
            )
        pq.write_table(pa.concat_tables(parts), path)


def _streams(world: World, trades: Instructions, rng: np.random.Generator) -> list[Stream]:
    """Return the events of all topics, in the course of which what was hidden shows."""
    n = len(trades)
    dates = np.array([_milliseconds(day) for day in world.calendar], dtype=np.int64)
    business_days = np.array([day.isoformat() for day in world.calendar])
    ids, utis = _instruction_ids(world, trades), _ids("UTI", trades)
    isins, leis = np.array(world.isins)[trades.security], np.array(world.leis)[trades.counterparty]
    places = np.array(list(PLACES))[world.place[trades.security]]

    def between(day: NDArray[np.int64], first: float, last: float, rows: Flags | slice = slice(None)) -> Any:
        """Return times on business days, drawn between two hours."""
        chosen = day[rows]
        return dates[chosen] + (rng.uniform(first, last, len(chosen)) * _HOUR).astype(np.int64)

    traded = between(trades.day, 7, 17)
    sent = np.where(
        trades.late, between(trades.day + 1, 7, 9), traded + (rng.uniform(0.1, 1.9, n) * _HOUR).astype(np.int64)
    )
    settlement_day = trades.day + SETTLEMENT_DAYS
    # The depository matches from the evening of the trade date until early in the afternoon of the next day.
    heard = np.where(trades.late, between(trades.day + 1, 10, 14), between(trades.day, 20.5, 38))
    heard = np.minimum(heard, dates[trades.day + 1] + 14 * _HOUR)
    resolved = trades.unmatched & ~trades.unmatched_at_settlement
    partial = trades.failed & (rng.random(n) < _PARTIAL_SHARE) & (trades.quantity > 1)
    days_late = np.minimum(rng.geometric(0.45, n), 5)
    reasons = np.where(trades.unmatched, _NOT_MATCHED[rng.integers(0, len(_NOT_MATCHED), n)], "")
    part = np.maximum(1, trades.quantity // 2)
    rest = trades.quantity - np.where(partial, part, 0)

    def status(prefix: str, name: str, times: Any, rows: Flags, reason: NDArray[Any] | None) -> Stream:
        count = int(rows.sum())
        columns = {
            "instruction_id": ids[rows],
            "status": np.full(count, name),
            "reason": np.full(count, None) if reason is None else reason[rows].astype(object),
        }
        return Stream("settlement_status", "instruction_id", prefix, times, columns)

    def confirmation(prefix: str, times: Any, rows: Flags, quantity: NDArray[np.int64]) -> Stream:
        columns = {"instruction_id": ids[rows], "quantity": quantity[rows]}
        return Stream("settlement_confirmations", "instruction_id", prefix, times, columns)

    settled = ~trades.failed
    return [
        Stream(
            "trades",
            "uti",
            "TR",
            traded,
            {
                "uti": utis,
                "isin": isins,
                "mic": np.array([a.mic for a in ASSET_CLASSES])[world.asset_class[trades.security]],
                "side": np.where(trades.deliver, "SELL", "BUY"),
                "quantity": trades.quantity,
                "price": np.round(world.price[trades.security], 4),
                "counterparty_lei": leis,
            },
        ),
        Stream(
            "settlement_instructions",
            "instruction_id",
            "SI",
            sent,
            {
                "instruction_id": ids,
                "uti": utis,
                "isin": isins,
                "movement": np.where(trades.deliver, "DELI", "RECE"),
                "payment": np.where(rng.random(n) < 0.93, "APMT", "FREE"),
                "quantity": trades.quantity,
                "amount": trades.amount,
                "counterparty_lei": leis,
                "account": _accounts(trades.counterparty, world.place[trades.security], trades.old_account),
                "pset": places,
                "trade_date": business_days[trades.day],
                "intended_settlement_date": business_days[settlement_day],
            },
        ),
        status("SM", "MACH", heard[~trades.unmatched], ~trades.unmatched, None),
        status("SN", "NMAT", heard[trades.unmatched], trades.unmatched, reasons),
        status("SR", "MACH", between(trades.day + 1, 16, 20, resolved), resolved, None),
        # The reason of a fail comes with the fail: using it for a prediction would be a leak.
        status(
            "SF",
            "PENF",
            between(settlement_day, 17.2, 18.5, trades.failed),
            trades.failed,
            _fail_reasons(world, trades, rng),
        ),
        confirmation("CF", between(settlement_day, 8, 15.5, settled), settled, trades.quantity),
        confirmation("CP", between(settlement_day, 8, 15.5, partial), partial, part),
        confirmation("CL", between(settlement_day + days_late, 8, 15.5, trades.failed), trades.failed, rest),
        *_evening_streams(world, rng),
    ]


def _evening_streams(world: World, rng: np.random.Generator) -> list[Stream]:
    """Return lending markets at 17:00 and inventory at 19:00, of each security and day."""
    days, securities = world.scarcity.shape
    day, security = (grid.ravel() for grid in np.meshgrid(np.arange(days), np.arange(securities), indexing="ij"))
    dates = np.array([_milliseconds(d) for d in world.calendar], dtype=np.int64)[day]
    isins = np.array(world.isins)[security]
    scarcity, short = world.scarcity.ravel(), world.short.ravel()
    n = len(day)
    spare = rng.lognormal(8, 1, n).astype(np.int64) + 1
    fee = 30 * np.exp(0.9 * scarcity + rng.normal(0, 0.05, n))
    return [
        Stream(
            "inventory_positions",
            "isin",
            "IP",
            dates + 19 * _HOUR,
            {"isin": isins, "available_quantity": np.where(short, -spare, spare)},
        ),
        Stream(
            "securities_lending",
            "isin",
            "SL",
            dates + 17 * _HOUR,
            {
                "isin": isins,
                "fee_bp": np.round(fee, 2),
                "utilisation": np.round(1 / (1 + np.exp(-scarcity + rng.normal(0, 0.5, n))), 4),
            },
        ),
    ]


def _fail_reasons(world: World, trades: Instructions, rng: np.random.Generator) -> NDArray[Any]:
    """Return why each instruction would be said to fail: (n,)."""
    n = len(trades)
    scarce = world.scarcity[trades.day, trades.security] > 0.5
    other = np.array(["PREA", "PRCY", "LATE", "LINK"])[rng.integers(0, 4, n)]
    lacking = np.where(trades.deliver, "LACK", "CLAC")
    no_money = np.where(trades.deliver, "CMON", "MONY")
    usual = np.where(scarce | (rng.random(n) < 0.5), lacking, np.where(rng.random(n) < 0.4, no_money, other))
    return np.where(trades.unmatched_at_settlement, "CMIS", usual)


def _reference_rows(world: World) -> dict[str, list[dict[str, object]]]:
    places = list(PLACES)
    bics = [f"{_letters(c)}{COUNTRIES[c % len(COUNTRIES)]}FFXXX" for c in range(len(world.leis))]
    old, new = (world.config.start - timedelta(days=days) for days in (400, 30))
    return {
        "securities": [
            {
                "isin": code,
                "name": f"{ASSET_CLASSES[world.asset_class[s]].name.replace('_', ' ').title()} {s}",
                "cfi_code": ASSET_CLASSES[world.asset_class[s]].cfi,
                "asset_class": ASSET_CLASSES[world.asset_class[s]].name,
                "mic": ASSET_CLASSES[world.asset_class[s]].mic,
                "pset": places[world.place[s]],
            }
            for s, code in enumerate(world.isins)
        ],
        "counterparties": [
            {"lei": code, "bic": bics[c], "name": f"Counterparty {c}", "country": COUNTRIES[c % len(COUNTRIES)]}
            for c, code in enumerate(world.leis)
        ],
        "standing_settlement_instructions": [
            {"lei": code, "pset": place, "account": _account(c, p, is_old), "valid_from": old if is_old else new}
            for c, code in enumerate(world.leis)
            for p, place in enumerate(places)
            for is_old in (True, False)
        ],
        "cut_offs": [{"pset": place, "cut_off": cut_off} for place, cut_off in PLACES.items()],
        "penalty_rates": [
            {"asset_class": a.name, "bp_per_day": a.penalty_bp, "valid_from": date(2022, 2, 1)} for a in ASSET_CLASSES
        ],
    }


def _until(stream: Stream, end: int) -> Stream:
    """Return what happens before a time, in order."""
    order = np.argsort(stream.times, kind="stable")
    order = order[stream.times[order] < end]
    columns = {name: values[order] for name, values in stream.columns.items()}
    return Stream(stream.topic, stream.key, stream.prefix, stream.times[order], columns)


def _encode(stream: Stream, first: int, end: int, rng: np.random.Generator) -> Iterator[Message]:
    """Yield what happens in a span of time; the broker has it up to twenty seconds later."""
    low, high = np.searchsorted(stream.times, [first, end])
    times = stream.times[low:high]
    known = np.minimum(times + rng.integers(200, 20_000, len(times)), end - 1).tolist()
    moments = np.datetime_as_string(times.astype("datetime64[ms]"), unit="ms").tolist()
    names = list(stream.columns)
    key = names.index(stream.key)
    rows = zip(*(stream.columns[name][low:high].tolist() for name in names), strict=True)
    encode = msgspec.json.Encoder().encode
    for number, (row, moment, timestamp) in enumerate(zip(rows, moments, known, strict=True), start=int(low)):
        payload = {"event_id": f"{stream.prefix}-{number}", "event_time": f"{moment}Z"}
        payload.update(zip(names, row, strict=True))
        yield Message(stream.topic, str(row[key]).encode(), encode(payload), timestamp)


def _instruction_ids(world: World, trades: Instructions) -> NDArray[Any]:
    days = np.array([day.strftime("%Y%m%d") for day in world.calendar])[trades.day]
    return np.char.add(np.char.add(days, "-"), np.char.zfill(np.arange(len(trades)).astype(str), 7))


def _ids(prefix: str, trades: Instructions) -> NDArray[Any]:
    return np.char.add(prefix, np.char.zfill(np.arange(len(trades)).astype(str), 9))


def _accounts(counterparty: NDArray[np.int64], place: NDArray[np.int64], old: Flags) -> NDArray[Any]:
    parties, places = int(counterparty.max(initial=0)) + 1, len(PLACES)
    known: Sequence[str] = [_account(c, p, o) for c in range(parties) for p in range(places) for o in (False, True)]
    accounts: NDArray[Any] = np.array(known)[(counterparty * places + place) * 2 + old]
    return accounts


def _account(counterparty: int, place: int, is_old: bool) -> str:
    return f"SAFE{counterparty:03}{place}{1 if is_old else 2}"


def _letters(number: int) -> str:
    return "".join(chr(65 + number // 26**power % 26) for power in (3, 2, 1, 0))


def _milliseconds(day: date) -> int:
    return int(datetime.combine(day, time(), tzinfo=UTC).timestamp() * 1000)
