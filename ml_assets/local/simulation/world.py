"""Who trades what in the simulated market, and what is hidden: quality, scarcity, inventory, stress."""

from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ml_assets.calendars import BusinessCalendar
from ml_assets.local.simulation.identifiers import isin, lei

CALENDAR = BusinessCalendar("ECB")
SETTLEMENT_DAYS = 2
# Days of the calendar beyond the last trade date: fails settle up to five business days late.
_BEYOND = SETTLEMENT_DAYS + 6


@dataclass(frozen=True, slots=True)
class AssetClass:
    """A class of securities: CFI code, share of trades, target fail rate, typical price and value, penalty.

    `penalty_bp` is the cash penalty a day in basis points: Commission Delegated Regulation (EU) 2017/389, annex.
    """

    name: str
    cfi: str
    mic: str
    share: float
    fail_rate: float
    price: float
    value: float
    penalty_bp: float


ASSET_CLASSES = (
    AssetClass("liquid_share", "ESVUFR", "XETR", 0.34, 0.060, 60.0, 250_000.0, 1.0),
    AssetClass("illiquid_share", "ESVUFR", "XPAR", 0.14, 0.085, 25.0, 80_000.0, 0.5),
    AssetClass("sme_growth_share", "ESVUFR", "XAMS", 0.06, 0.095, 8.0, 40_000.0, 0.25),
    AssetClass("etf", "CEOJLS", "XETR", 0.14, 0.120, 45.0, 300_000.0, 0.5),
    AssetClass("corporate_bond", "DBFUFR", "XLUX", 0.16, 0.035, 101.0, 900_000.0, 0.20),
    AssetClass("sme_bond", "DBFUFR", "XLUX", 0.04, 0.038, 99.0, 200_000.0, 0.15),
    AssetClass("sovereign_bond", "DBFTFR", "XFRA", 0.12, 0.022, 100.0, 3_000_000.0, 0.10),
)
# Place of settlement (the BIC of the securities depository) and its cut-off, UTC.
PLACES = {"DAKVDEFFXXX": "16:00", "SICVFRPPXXX": "16:30", "NECINL2AXXX": "16:00", "CEDELULLXXX": "17:00"}
COUNTRIES = ("DE", "FR", "NL", "LU")


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the market from the business day number `first` on, up to and without `end` (None: for good).

    In a `stress` fails are about twice as many; a `counterparty`, the first, fails far more often; a `market` opens, on
    which a seventh of the securities trade; the `feed` of lending fees comes in percent instead of basis points; what
    is instructed `late` fails far more often than it did.
    """

    what: Literal["stress", "counterparty", "market", "feed", "late"]
    first: int
    end: int | None = None

    def on(self, day: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return on which of these business days it is in force: (n,)."""
        return np.asarray((day >= self.first) & (day < (np.inf if self.end is None else self.end)))


@dataclass(frozen=True, slots=True)
class MarketConfig:
    """The knobs. `dirty` is the share of messages that are duplicated, late, out of order or malformed, in all.

    `stress` is a fortnight, two thirds into the period, in which fails are about twice as many. `changes` are planted
    beside it.
    """

    start: date = date(2026, 1, 5)
    days: int = 60
    instructions_per_day: int = 4000
    counterparties: int = 60
    securities: int = 400
    seed: int = 20260105
    stress: bool = False
    dirty: float = 0.002
    changes: tuple[Change, ...] = ()

    def has(self, what: str) -> bool:
        """Return whether such a change is planted."""
        return any(change.what == what for change in self.changes)

    def changed(self, what: str, day: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return on which of these business days such a change is in force: (n,)."""
        in_force = [change.on(day) for change in self.changes if change.what == what]
        return np.any(in_force, axis=0) if in_force else np.zeros(len(day), dtype=np.bool_)


@dataclass(frozen=True)
class World:
    """The market without its trades. Arrays over counterparties (c), securities (s) and days (d).

    - `quality` (c): log-odds that a counterparty's trades fail, beside all else
    - `ssi_fault_rate` (c): how often its instructions carry an old account
    - `asset_class` (s): index into `ASSET_CLASSES`; `place` (s): index into `PLACES`
    - `scarcity` (d, s): how hard a security is to borrow, standard normal, slowly moving
    - `short` (d, s): whether we lack inventory of it at the end of a day
    - `stress` (d): log-odds of market stress
    """

    config: MarketConfig
    calendar: tuple[date, ...]
    quality: NDArray[np.float64]
    ssi_fault_rate: NDArray[np.float64]
    asset_class: NDArray[np.int64]
    place: NDArray[np.int64]
    price: NDArray[np.float64]
    scarcity: NDArray[np.float64]
    short: NDArray[np.bool_]
    stress: NDArray[np.float64]

    @cached_property
    def isins(self) -> list[str]:
        """The ISIN of each security."""
        return [isin(COUNTRIES[self.place[s]], 100_000_000 + s) for s in range(len(self.place))]

    @cached_property
    def on_new_market(self) -> NDArray[np.bool_]:
        """Which securities are on the market that opens, if one does: (s,). None is the first of its asset class."""
        number = np.arange(len(self.place))
        return np.asarray((number % 7 == 0) & (number > 0) & self.config.has("market"))

    def degraded(self, day: NDArray[np.int64], counterparty: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return what a counterparty that degrades adds to its quality: (n,), of trades of these days."""
        worse = (counterparty == 0) & self.config.changed("counterparty", day)
        return np.where(worse, DEGRADED_LOG_ODDS, 0.0)

    def refused(self, day: NDArray[np.int64], late: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return what being late adds to the log-odds beside what it always did: (n,), of trades of these days."""
        return np.where(late & self.config.changed("late", day), REFUSED_LOG_ODDS, 0.0)

    @cached_property
    def leis(self) -> list[str]:
        """The LEI of each counterparty."""
        return [lei(c) for c in range(len(self.quality))]


# Transitions of the inventory of a security from one evening to the next.
STAYS_SHORT = 0.70
BECOMES_SHORT = 0.05
STRESS_LOG_ODDS = 0.9
DEGRADED_LOG_ODDS = 2.5
REFUSED_LOG_ODDS = 3.0
NEW_MARKET = "XWAR"


def make_world(config: MarketConfig, rng: np.random.Generator) -> World:
    """Return the market of a configuration."""
    days, securities, counterparties = config.days, config.securities, config.counterparties
    end = CALENDAR.add(config.start, days - 1 + _BEYOND)
    calendar = tuple(CALENDAR.between(config.start, end))
    shares = np.array([asset_class.share for asset_class in ASSET_CLASSES])
    asset_class = rng.choice(len(ASSET_CLASSES), securities, p=shares)
    asset_class[: len(ASSET_CLASSES)] = np.arange(len(ASSET_CLASSES))  # each class has a security
    typical = np.array([a.price for a in ASSET_CLASSES])[asset_class]
    return World(
        config=config,
        calendar=calendar,
        quality=rng.normal(0, 0.9, counterparties),
        ssi_fault_rate=rng.beta(1.2, 40, counterparties),
        asset_class=asset_class,
        place=rng.integers(0, len(PLACES), securities),
        price=typical * rng.lognormal(0, 0.25, securities),
        scarcity=_slowly_moving(rng, days, securities),
        short=_inventory(rng, days, securities),
        stress=_stress(config),
    )


def _slowly_moving(rng: np.random.Generator, days: int, securities: int) -> NDArray[np.float64]:
    """Return a stationary AR(1) of unit variance for each security: (days, securities)."""
    keep = 0.99
    path = np.empty((days, securities))
    path[0] = rng.normal(size=securities)
    for day in range(1, days):
        path[day] = keep * path[day - 1] + np.sqrt(1 - keep**2) * rng.normal(size=securities)
    return path


def _inventory(rng: np.random.Generator, days: int, securities: int) -> NDArray[np.bool_]:
    """Return the two-state Markov chain of each security, begun in its stationary law: (days, securities)."""
    chance = rng.random((days, securities))
    short = np.empty((days, securities), dtype=bool)
    short[0] = chance[0] < BECOMES_SHORT / (BECOMES_SHORT + 1 - STAYS_SHORT)
    for day in range(1, days):
        short[day] = chance[day] < np.where(short[day - 1], STAYS_SHORT, BECOMES_SHORT)
    return short


def _stress(config: MarketConfig) -> NDArray[np.float64]:
    log_odds = np.zeros(config.days)
    if config.stress:
        first = config.days * 2 // 3
        log_odds[first : first + 10] = STRESS_LOG_ODDS
    log_odds[config.changed("stress", np.arange(config.days))] = STRESS_LOG_ODDS
    return log_odds
