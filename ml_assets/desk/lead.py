"""What the lead's page shows: how the list is worked off, by whom and when, and how good the model has been."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from sqlalchemy import Engine

from ml_assets.database.alerts import EventRow, open_alerts
from ml_assets.database.models import Performance, ShadowVerdictRow
from ml_assets.database.monitoring import rows_between
from ml_assets.database.promotions import LedgerEntry, last_change, newest_of_canaries, open_request
from ml_assets.desk.rows import Row
from ml_assets.predictions.feedback import RESULTS, UNTOUCHED, Line, Standing
from ml_assets.spec import UseCase

_METRIC: Final = "precision_at_capacity"
# So far back a complete outcome date is looked for: outcomes may be known weeks later.
_BACK: Final = timedelta(days=60)
_DAYS: Final = 5


@dataclass(frozen=True, slots=True)
class WorkedOff:
    """How far a list is: rows that the team is to act on, by what became of them.

    `closed` are those on which nobody has acted, and which need nothing any more.
    `hidden` are those that were shown without their score, and `hidden_acted` those of them that were acted on: beside
    the share of the others, they tell how far people follow the score.
    `saved` is what acting is expected to have saved, in the currency of the use case: its share of the expected cost of
    the rows acted on, less what acting costs. `results` counts results, `right` and `judged` the reasons.
    """

    listed: int
    acted: int
    in_time: int
    in_work: int
    missed: int
    closed: int
    hidden: int
    hidden_acted: int
    saved: float
    results: Mapping[str, int]
    right: int
    judged: int
    hours: tuple[int, ...]
    by_analyst: Mapping[str, Mapping[int, int]]

    @property
    def left(self) -> int:
        """Rows that nobody has taken and that can still be acted on."""
        return max(0, self.listed - self.acted - self.in_work - self.missed - self.closed)

    @property
    def shown_acted_share(self) -> float | None:
        """The share that was acted on of the rows shown with their score; None if there are none."""
        shown = self.listed - self.hidden
        return (self.acted - self.hidden_acted) / shown if shown else None


@dataclass(frozen=True, slots=True)
class ModelStanding:
    """The champion and what was said of it and its rivals last; precision: of the newest window, and by day."""

    champion: LedgerEntry | None
    request: LedgerEntry | None
    canary: LedgerEntry | None
    shadow: Mapping[str, Any] | None
    precision: Mapping[str, Any] | None
    by_day: tuple[Mapping[str, Any], ...]
    alerts: tuple[EventRow, ...]


def worked_off(
    usecase: UseCase,
    rows: Sequence[Row],
    standings: Mapping[str, Standing],
    now: datetime,
    closed: Container[str] = (),
) -> WorkedOff:
    """Return how far the list is at a time: of the rows within the capacity, and of all others that were acted on."""
    zone = ZoneInfo(usecase.desk.zone)
    listed = [row for row in rows if row.on_list and not row.control]
    acted: list[tuple[Row, Line]] = []
    for row in rows:
        if (line := standings.get(row.entity_id, UNTOUCHED).acted) is not None:
            acted.append((row, line))
    of_list = [(row, line) for row, line in acted if row.on_list and not row.control]
    untouched = [row for row in listed if standings.get(row.entity_id, UNTOUCHED).acted is None]
    open_ones = [row for row in untouched if row.entity_id not in closed]
    by_analyst: dict[str, Counter[int]] = {}
    for _, line in acted:
        by_analyst.setdefault(line.actor, Counter())[line.at.astimezone(zone).hour] += 1
    results = Counter(at.result.value for at in standings.values() if at.result is not None)
    judged = [(row, at.judged) for row in rows if (at := standings.get(row.entity_id, UNTOUCHED)).judged is not None]
    hours = sorted({hour for counts in by_analyst.values() for hour in counts})
    return WorkedOff(
        listed=len(listed),
        acted=len(of_list),
        in_time=sum(line.at < row.cut_off_at for row, line in of_list),
        in_work=sum(
            standings.get(row.entity_id, UNTOUCHED).state == "in work" and row.cut_off_at > now for row in open_ones
        ),
        missed=sum(row.cut_off_at <= now for row in open_ones),
        closed=len(untouched) - len(open_ones),
        hidden=sum(row.hidden for row in listed),
        hidden_acted=sum(row.hidden for row, _ in of_list),
        saved=sum(usecase.action.effectiveness * row.expected_cost - usecase.action.cost for row, _ in acted),
        results={result: results[result] for result in RESULTS if results[result]},
        right=sum(line is not None and line.value == row.cause for row, line in judged),
        judged=len(judged),
        hours=tuple(range(hours[0], hours[-1] + 1)) if hours else (),
        by_analyst={name: dict(counts) for name, counts in sorted(by_analyst.items())},
    )


def model_standing(engine: Engine, usecase: UseCase, today: date) -> ModelStanding:
    """Return what the ledgers and the monitoring say of a use case's model."""
    name, since = usecase.name, today - _BACK
    measured = [row for row in rows_between(engine, Performance, name, since, today) if row["metric"] == _METRIC]
    newest = max((row["outcome_date"] for row in measured), default=None)
    of_newest = [row for row in measured if row["outcome_date"] == newest]
    days = sorted((row for row in of_newest if row["dimension"] == "day"), key=lambda row: str(row["value"]))
    shadow = rows_between(engine, ShadowVerdictRow, name, since, today)
    return ModelStanding(
        champion=last_change(engine, name),
        request=open_request(engine, name),
        canary=newest_of_canaries(engine, name),
        shadow=shadow[-1] if shadow else None,
        precision=next((row for row in of_newest if row["dimension"] == "all"), None),
        by_day=tuple(days[-_DAYS:]),
        alerts=tuple(open_alerts(engine, name)),
    )
