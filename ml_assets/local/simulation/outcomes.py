"""Trades and the law of their outcome: what is known at each decision slot, and the exact probability then.

An instruction fails with log-odds that add up: its asset class, the counterparty's quality, the security's scarcity,
an old account (SSI), a late instruction, its size, market stress, and three things that show only with time: whether
it is still unmatched on the morning of the settlement date, whether it is still on hold then, and whether we are short
of the security on the evening before. At an earlier slot the probability is the expectation over what is not yet known,
an exact finite sum.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_assets.local.simulation.world import ASSET_CLASSES, BECOMES_SHORT, STAYS_SHORT, World

Floats = NDArray[Any]
Flags = NDArray[np.bool_]

# Log-odds.
_SCARCITY = 0.75
_OLD_ACCOUNT = 2.0
_LATE = 0.8
_SIZE = 0.2
_UNMATCHED = 2.6
_SHORT = 1.9
_ON_HOLD = 3.6
# Matching.
_UNMATCHED_BASE = -2.2
_UNMATCHED_QUALITY = 0.5
_UNMATCHED_OLD_ACCOUNT = 1.5
STAYS_UNMATCHED = 0.45
# Holds: we send some instructions to be released later, most of them until the afternoon before settlement, some in the
# hours after it. What is on hold on the morning of the settlement date may still be released in time.
_SENT_ON_HOLD = 0.04
STAYS_ON_HOLD_UNTIL_AFTERNOON = 0.45
STAYS_ON_HOLD_OVERNIGHT = 0.45
# Business days from the newest trade date whose outcomes show at a slot to that of what is decided: at 15:00 most of
# the day's confirmations are there, at 20:00 its fails, at 07:00 those of the day before.
STRESS_SHOWS_AFTER = {"end_of_trade_date": 2, "isd_minus_1": 1, "isd_morning": 1}


@dataclass(frozen=True)
class Instructions:
    """All instructions: arrays (n,) in order of trade date. Indices point into the world's calendar and arrays.

    `on_hold` tells whether an instruction is sent on hold, `on_hold_day_before` and `on_hold_at_settlement` whether it
    still is in the afternoon before its settlement date and on the morning of it; `short` whether we lack inventory of
    the security on the evening before. `probability` maps each slot to the true probability of a fail as seen from
    there by who knows the stress of the trade date. `reachable` is the same for who knows the stress only as outcomes
    show it, and takes it to last.
    """

    day: NDArray[np.int64]
    counterparty: NDArray[np.int64]
    security: NDArray[np.int64]
    deliver: Flags
    quantity: NDArray[np.int64]
    amount: Floats
    old_account: Flags
    late: Flags
    unmatched: Flags
    unmatched_at_settlement: Flags
    on_hold: Flags
    on_hold_day_before: Flags
    on_hold_at_settlement: Flags
    short: Flags
    failed: Flags
    probability: dict[str, Floats]
    reachable: dict[str, Floats]

    def __len__(self) -> int:
        return len(self.day)


def draw_instructions(world: World, rng: np.random.Generator) -> Instructions:
    """Return the instructions of all days, their outcomes drawn from their probability at the last slot."""
    config = world.config
    n = config.days * config.instructions_per_day
    day = np.repeat(np.arange(config.days), config.instructions_per_day)
    counterparty = rng.integers(0, config.counterparties, n)
    security = _securities(world, rng, day)
    asset_class = world.asset_class[security]
    degraded = world.degraded(day, counterparty)
    quality = world.quality[counterparty] + degraded
    deliver = rng.random(n) < 0.5
    size = rng.normal(0, 1, n)
    typical = np.array([a.value for a in ASSET_CLASSES])[asset_class]
    quantity = np.maximum(1, np.rint(typical * np.exp(size) / world.price[security])).astype(np.int64)
    old_account = rng.random(n) < world.ssi_fault_rate[counterparty]
    late = rng.random(n) < 0.04
    refused = world.refused(day, late)

    static = (
        quality
        + _SCARCITY * world.scarcity[day, security]
        + _OLD_ACCOUNT * old_account
        + _LATE * late
        + refused
        + _SIZE * size
        + world.stress[day]
    )
    unmatched_rate = _sigmoid(_UNMATCHED_BASE + _UNMATCHED_QUALITY * quality + _UNMATCHED_OLD_ACCOUNT * old_account)
    unmatched = rng.random(n) < unmatched_rate
    unmatched_at_settlement = unmatched & (rng.random(n) < STAYS_UNMATCHED)
    tonight = world.short[day, security]
    # Nobody has seen the evening after the last day; its inventory is drawn for the outcome all the same.
    next_evening = np.minimum(day + 1, config.days - 1)
    short = np.where(
        day + 1 < config.days,
        world.short[next_evening, security],
        rng.random(n) < np.where(tonight, STAYS_SHORT, BECOMES_SHORT),
    )

    on_hold = rng.random(n) < _SENT_ON_HOLD
    on_hold_day_before = on_hold & (rng.random(n) < STAYS_ON_HOLD_UNTIL_AFTERNOON)
    on_hold_at_settlement = on_hold_day_before & (rng.random(n) < STAYS_ON_HOLD_OVERNIGHT)

    def released(log_odds: Floats, short_rate: Floats, unmatched_share: Floats, delivers: Flags) -> Floats:
        """Return the probability of what is not on hold, when two things are only known by their own probabilities."""
        total = np.zeros(len(log_odds))
        for is_short in (False, True):
            for is_unmatched in (False, True):
                weight = (short_rate if is_short else 1 - short_rate) * (
                    unmatched_share if is_unmatched else 1 - unmatched_share
                )
                total += weight * _sigmoid(log_odds + _SHORT * is_short * delivers + _UNMATCHED * is_unmatched)
        return total

    def expected(log_odds: Floats, short_rate: Floats, unmatched_share: Floats, hold_share: Floats) -> Floats:
        """Return the probability when three things are only known by their own probabilities."""
        total = released(log_odds, short_rate, unmatched_share, deliver)
        # Few are on hold: only their other case is computed.
        held = np.flatnonzero(hold_share)
        still = released(log_odds[held] + _ON_HOLD, short_rate[held], unmatched_share[held], deliver[held])
        total[held] += hold_share[held] * (still - total[held])
        return total

    short_rate = np.where(tonight, STAYS_SHORT, BECOMES_SHORT)
    first_evening = (
        short_rate,
        unmatched_rate * STAYS_UNMATCHED,
        on_hold * (STAYS_ON_HOLD_UNTIL_AFTERNOON * STAYS_ON_HOLD_OVERNIGHT),
    )
    calm = static - world.stress[day] - degraded - refused
    log_odds = static + _base_log_odds(asset_class, lambda base: expected(calm + base, *first_evening))

    def seen_from(log_odds: Floats, slot: str) -> Floats:
        """Return the probability given what a slot shows of matching, holds and inventory."""
        if slot == "end_of_trade_date":
            return expected(log_odds, *first_evening)
        if slot == "isd_minus_1":
            return expected(
                log_odds, short_rate, unmatched * STAYS_UNMATCHED, on_hold_day_before * STAYS_ON_HOLD_OVERNIGHT
            )
        shown = (short, unmatched_at_settlement, on_hold_at_settlement)
        return expected(log_odds, *(is_so.astype(np.float64) for is_so in shown))

    probability = {slot: seen_from(log_odds, slot) for slot in STRESS_SHOWS_AFTER}
    reachable = {
        slot: seen_from(log_odds - world.stress[day] + world.stress[np.maximum(day - after, 0)], slot)
        if world.stress.any()
        else probability[slot]
        for slot, after in STRESS_SHOWS_AFTER.items()
    }
    return Instructions(
        day=day,
        counterparty=counterparty,
        security=security,
        deliver=deliver,
        quantity=quantity,
        amount=np.round(quantity * world.price[security], 2),
        old_account=old_account,
        late=late,
        unmatched=unmatched,
        unmatched_at_settlement=unmatched_at_settlement,
        on_hold=on_hold,
        on_hold_day_before=on_hold_day_before,
        on_hold_at_settlement=on_hold_at_settlement,
        short=short,
        failed=rng.random(n) < probability["isd_morning"],
        probability=probability,
        reachable=reachable,
    )


def _securities(world: World, rng: np.random.Generator, day: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return securities so that each asset class has its share of the trades, the first of a class the most.

    Before a new market opens, others of the class are traded instead of those on it.
    """
    shares = np.array([a.share for a in ASSET_CLASSES])
    weights = np.zeros(len(world.asset_class))
    instead = np.arange(len(world.asset_class))
    for number, share in enumerate(shares):
        members = np.flatnonzero(world.asset_class == number)
        popularity = 1 / np.sqrt(1 + np.arange(len(members)))
        weights[members] = share * popularity / popularity.sum()
        opening = members[world.on_new_market[members]]
        instead[opening] = np.resize(members[~world.on_new_market[members]], len(opening))
    security = rng.choice(len(weights), len(day), p=weights)
    not_yet = world.on_new_market[security] & ~world.config.changed("market", day)
    return np.where(not_yet, instead[security], security)


def _base_log_odds(asset_class: NDArray[np.int64], mean_at: Callable[[Floats], Floats]) -> Floats:
    """Return the log-odds (n,) that give each class its target fail rate without stress, by bisection."""
    classes = len(ASSET_CLASSES)
    low, high = np.full(classes, -12.0), np.full(classes, 2.0)
    target = np.array([a.fail_rate for a in ASSET_CLASSES])
    traded = np.maximum(1, np.bincount(asset_class, minlength=classes))
    for _ in range(30):
        middle = (low + high) / 2
        rate = np.bincount(asset_class, weights=mean_at(middle[asset_class]), minlength=classes) / traded
        low, high = np.where(rate < target, middle, low), np.where(rate < target, high, middle)
    base: Floats = ((low + high) / 2)[asset_class]
    return base


def _sigmoid(log_odds: Floats) -> Floats:
    probability: Floats = 1 / (1 + np.exp(-log_odds))
    return probability
