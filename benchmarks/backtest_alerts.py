"""`make backtest-alerts`: every shipped rule on a simulated year, into docs/alerts.md: how often it fires, how rightly.

The year has its market from the simulator, scored by a model that knows what can be known of it, and measured as
monitoring measures. Feeds, runs, disk and the lander are made up, with the small troubles that each day has. Into that
troubles are planted. An alert is right if it opens while a trouble is there that the rule is to tell, or shows; any
other is a false alarm.
"""

import re
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Engine, insert, text

from benchmarks.bench_report import DOCS
from ml_assets.alerts.machine import Failed
from ml_assets.alerts.rule import Rule
from ml_assets.database.connect import connect
from ml_assets.database.migrate import migrate
from ml_assets.database.models import (
    Drift,
    Estimate,
    LostAnswers,
    OutcomeCount,
    Performance,
    Promotion,
    RetrainingDecision,
    Scoring,
)  # fmt: skip
from ml_assets.database.monitoring import replace_dates
from ml_assets.database.reports import Given
from ml_assets.features.days import day_end
from ml_assets.lake import Lake
from ml_assets.lifecycle.alert_rules import all_rules
from ml_assets.lifecycle.alerts import NOW_ONLY, Ground, backtest
from ml_assets.lifecycle.feeds import FEED_COLUMNS, QUALITY_COLUMNS
from ml_assets.local.embedded.environment import database_url, stop_servers
from ml_assets.local.simulation.events import instruction_ids
from ml_assets.local.simulation.market import MarketConfig, simulate
from ml_assets.local.simulation.outcomes import Instructions
from ml_assets.local.simulation.truth import truth_table
from ml_assets.local.simulation.world import ASSET_CLASSES, World
from ml_assets.monitoring.drift import drift_table, group_findings, whole_finding
from ml_assets.monitoring.estimate import estimates
from ml_assets.monitoring.outcomes import BATCH, join_outcomes, judged_rows, known_until, outcome_counts
from ml_assets.monitoring.performance import matured_window, performance
from ml_assets.monitoring.retraining import Facts, Past, breaches, decide, with_drift
from ml_assets.settings import Settings
from ml_assets.usecases.settlement_fails.usecase import USE_CASE

PAGE = DOCS / "alerts.md"
BEGIN, END = "<!-- written by `make backtest-alerts` -->", "<!-- end of what it writes -->"
DAYS, PER_DAY, SEED = 250, 400, 20260105
# Intervals of performance from fewer draws than in production: the year is measured once a week all the same.
_DRIFT = replace(USE_CASE.monitoring.drift, groups=("attributes.counterparty",))  # simulated here without features
USE = replace(
    USE_CASE, gate=replace(USE_CASE.gate, resamples=200), monitoring=replace(USE_CASE.monitoring, drift=_DRIFT)
)
TOPICS: Final = tuple(dict.fromkeys(event.topic for event in USE.events))
# As far back as `lifecycle.drift` looks for outcomes.
_DRIFT_LOOKS: Final = timedelta(days=30 + USE.monitoring.drift.group_days)


@dataclass(frozen=True)
class Trouble:
    """Something that was planted: the rule that is to tell it, others in which it may show, and from when to when."""

    rule: str
    first: datetime
    last: datetime
    shows: tuple[str, ...] = ()
    late: timedelta = timedelta(hours=2)


@dataclass
class Year:
    """The simulated year: its business days, what was planted, and what relations were at a time."""

    days: Sequence[date]
    troubles: list[Trouble] = field(default_factory=list)
    feeds: list[dict[str, Any]] = field(default_factory=list)
    quality: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    outages: list[tuple[str, datetime, datetime]] = field(default_factory=list)
    full: list[tuple[datetime, datetime]] = field(default_factory=list)
    apart: list[tuple[datetime, datetime]] = field(default_factory=list)

    def at(self, number: int, hour: float = 7) -> datetime:
        """A time of the business day with this number."""
        return datetime.combine(self.days[number], time(), tzinfo=UTC) + timedelta(hours=hour)

    def plant(self, rule: str, number: int, hours: float, *, hour: float = 7, **more: Any) -> Trouble:
        """Note a trouble that begins on a day and lasts some hours."""
        first = self.at(number, hour)
        made = Trouble(rule, first, first + timedelta(hours=hours), **more)
        self.troubles.append(made)
        return made

    def past(self, rows: Sequence[dict[str, Any]], columns: dict[str, type], at: datetime) -> Given:
        """The rows of the four weeks before a time."""
        first = at.date() - timedelta(days=28)
        return Given(columns, [row for row in rows if first <= row["business_date"] <= at.date()])

    def runs_at(self, at: datetime) -> Given:
        """The runs of two days, as they stood at a time."""
        found = []
        for row in self.runs:
            if not at - timedelta(days=2) <= row["queued_at"] <= at:
                continue
            ended = row["ended_at"] is not None and row["ended_at"] <= at
            began = row["started_at"] is not None and row["started_at"] <= at
            status = row["status"] if ended else "STARTED" if began else "QUEUED"
            found.append(
                {**row, "status": status, "started_at": row["started_at"] if began else None,
                 "ended_at": row["ended_at"] if ended else None}
            )  # fmt: skip
        return Given(NOW_ONLY["runs"], found)

    def landing_at(self, at: datetime) -> Given:
        """How far topics had landed at a time: a few seconds behind, or as far as an outage of the lander left them."""
        lag = np.random.default_rng(int(at.timestamp())).lognormal(1.5, 1.2, len(TOPICS))  # seconds
        rows = []
        for topic, seconds in zip(TOPICS, lag.tolist(), strict=True):
            out = [first for name, first, last in self.outages if name == topic and first <= at <= last]
            until = out[0] if out else at - timedelta(seconds=seconds)
            rows.append({"topic": topic, "landed_until": until, "has_landed": True})
        return Given(NOW_ONLY["landing"], rows)

    def storage_at(self, at: datetime) -> Given:
        """How full the disk was: it fills for a week, is cleared by maintenance, and was not on planted days."""
        filled = 0.55 + 0.25 * ((at - datetime(2026, 1, 1, tzinfo=UTC)) % timedelta(days=7)) / timedelta(days=7)
        if any(first <= at <= last for first, last in self.full):
            filled = 0.94
        return Given(NOW_ONLY["storage"], [{"place": "lake", "used": filled, "free_gib": 500 * (1 - filled)}])

    def champions_at(self, at: datetime) -> Given:
        """Whether alias and ledger named the same model."""
        apart = any(first <= at <= last for first, last in self.apart)
        row = {"by_alias": 2 if apart else 1, "by_ledger": 1, "agrees": not apart}
        return Given(NOW_ONLY["champions"], [row])


def main() -> None:
    """Make the year, play every rule on it, and write the section of the page."""
    settings = Settings(home=Path(tempfile.mkdtemp(prefix="ml_assets_")))
    engine = connect(database_url(settings))
    try:
        migrate(engine)
        year = make_year(engine)
        lines = [line for rule in all_rules([USE]) for line in played(engine, settings, year, rule)]
    finally:
        engine.dispose()
        stop_servers(settings)
    head = [
        "| rule | evaluated | opened | rightly | false alarms | planted | of these told | after, median |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    page = PAGE.read_text(encoding="utf-8")
    section = "\n".join([BEGIN, "", *head, *lines, "", END])
    page = re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: section, page, flags=re.DOTALL)
    PAGE.write_text(page, encoding="utf-8")
    sys.stdout.write(section + "\n")


def played(engine: Engine, settings: Settings, year: Year, rule: Rule) -> Iterator[str]:
    """Yield the line of a rule: each business day at nine if it follows an asset, else four times a day."""
    history = {
        "feeds": lambda at: year.past(year.feeds, FEED_COLUMNS, at),
        "quality": lambda at: year.past(year.quality, QUALITY_COLUMNS, at),
        "runs": year.runs_at, "landing": year.landing_at, "storage": year.storage_at, "champions": year.champions_at,
    }  # fmt: skip
    hours = [9] if rule.follows else [7, 10, 13, 16]
    times = [year.at(n, hour) for n in range(30, len(year.days) - 1) for hour in hours]
    nothing: Any = None
    ground = Ground(Lake(settings.lake_uri), nothing, engine, [USE], {})
    made = backtest(ground, rule, times, history=history)
    if failed := [result.why for _, result, _ in made if isinstance(result, Failed)]:
        raise SystemExit(f"{rule.full_name}: {failed[0]}")
    opened = [
        event.at for _, _, events in made for event in events if event.what == "opened" and event.kind == "firing"
    ]
    shown = [one for one in year.troubles if rule.name in (one.rule, *one.shows)]
    right = [at for at in opened if any(one.first <= at <= one.last + one.late for one in shown)]
    own = [one for one in year.troubles if one.rule == rule.name]
    after = [
        min(at for at in opened if one.first <= at <= one.last + one.late) - one.first
        for one in own
        if any(one.first <= at <= one.last + one.late for at in opened)
    ]
    wait = _said(statistics.median(after)) if after else ""
    yield (
        f"| `{rule.name}` | {len(times):,} | {len(opened)} | {len(right)} | {len(opened) - len(right)} | {len(own)} | "
        f"{len(after)} | {wait} |"
    )
    sys.stderr.write(f"{rule.full_name}: {len(opened)} opened, {len(right)} rightly, {len(after)} of {len(own)}\n")
    for at in opened:
        if at not in right:
            sys.stderr.write(f"  false at {at}\n")


def _said(length: timedelta) -> str:
    hours = length / timedelta(hours=1)
    if hours >= 48:
        return f"{hours / 24:.0f} days"
    return {0: "at once", 1: "an hour"}.get(round(hours), f"{hours:.0f} hours")


def make_year(engine: Engine) -> Year:
    """Simulate the market, score and measure it, make up the rest, and plant the troubles."""
    config = MarketConfig(days=DAYS, instructions_per_day=PER_DAY, stress=True, seed=SEED)
    market = simulate(config)
    year = Year(list(market.world.calendar)[:DAYS])
    rows = scored(year, market.world, market.instructions)
    ids = instruction_ids(market.world, market.instructions).tolist()
    names = [f"C{c:02d}" for c in market.instructions.counterparty.tolist()]
    _measure(engine, year, rows, dict(zip(ids, names, strict=True)))
    rng = np.random.default_rng([SEED, 2])
    _feeds(year, rng)
    _runs(year, rng)
    _operations(engine, year)
    return year


def scored(year: Year, world: World, trades: Instructions) -> pa.Table:
    """Return the decisions of the mornings with their outcomes, scored by who knows the law of the market.

    Planted: for three weeks probabilities are too high by a factor; for five weeks their order is half lost; and the
    simulator's fortnight of stress, which no score foresees.
    """
    truth = truth_table(world, trades)
    truth = truth.filter(pc.equal(truth["slot"], "isd_morning"))
    day_of = {day: number for number, day in enumerate(year.days)}
    number = np.array([day_of.get(day, -1) for day in truth["outcome_date"].to_pylist()])
    keep = number >= 0
    truth, number = truth.filter(pa.array(keep)), number[keep]
    rng = np.random.default_rng([SEED, 3])
    p = truth["reachable"].to_numpy()
    logit = np.log(p / (1 - p)) + rng.normal(0, 0.2, len(p))
    high, lost = (number >= 60) & (number < 75), (number >= 110) & (number < 135)
    logit = np.where(high, logit + 1.1, logit)
    spread = logit[lost] - logit[lost].mean()
    logit[lost] = logit[lost].mean() + 0.3 * spread + rng.normal(0, 0.95 * spread.std(), int(lost.sum()))
    p = 1 / (1 + np.exp(-logit))
    shifted = ("calibration_breach", "score_shift", "drift", "retraining_refused")
    year.plant("score_shift", 60, 15 * 34, shows=(*shifted, "performance_below_estimate"), late=timedelta(days=35))
    year.plant("calibration_breach", 60, 15 * 34, late=timedelta(days=35))
    year.plant("drift", 60, 15 * 34, late=timedelta(days=10))
    worse = ("performance_below_estimate", "champion_degrading", "calibration_breach", "drift", "retraining_refused")
    year.plant("champion_degrading", 110, 25 * 34, shows=worse, late=timedelta(days=35))
    year.plant("performance_below_estimate", 110, 25 * 34, late=timedelta(days=10))
    stress = DAYS * 2 // 3
    year.plant("fail_rate_of_a_market", stress, 10 * 34, shows=(*shifted, *worse), late=timedelta(days=4))
    which = np.flatnonzero(keep)  # each trade is decided on the morning of its settlement date, in their order
    classes = [ASSET_CLASSES[one] for one in world.asset_class[trades.security[which]].tolist()]
    costs = trades.amount[which] * (np.array([one.penalty_bp for one in classes]) / 1e4 + 0.03 / 360) * 2
    attributes = [
        f'{{"market": "{one.mic}", "counterparty": "C{c:02d}", "counterparty_tier": "{c % 3}", "amount": {a:.0f}}}'
        for one, c, a in zip(classes, trades.counterparty[which].tolist(), trades.amount[which].tolist(), strict=True)
    ]
    n = truth.num_rows
    predictions = pa.table(
        {
            "entity_id": truth["entity_id"], "decision_time": truth["decision_time"],
            "decision_date": truth["outcome_date"].cast(pa.date32()), "slot": truth["slot"],
            "outcome_date": truth["outcome_date"].cast(pa.date32()), "model_version": pa.array([1] * n, pa.int32()),
            "mlflow_run_id": pa.array(["run"] * n), "probability": pa.array(p), "cost_if_fail": pa.array(costs),
            "expected_cost": pa.array(p * costs), "attributes": pa.array(attributes),
        }
    )  # fmt: skip
    known = pc.add(truth["decision_time"], pa.scalar(timedelta(hours=23), pa.duration("us")))
    labels = pa.table(
        {
            "entity_id": truth["entity_id"], "decision_time": truth["decision_time"], "label": truth["outcome"],
            "label_known_at": known, "known_date": known.cast(pa.timestamp("us")).cast(pa.date32()),
        }
    )  # fmt: skip
    features = predictions.select(["entity_id", "decision_time"])
    features = features.append_column("asset_class", pa.array([one.name for one in classes]))
    return join_outcomes(USE, {BATCH: predictions}, features, labels, year.days)


def _measure(engine: Engine, year: Year, rows: pa.Table, counterparties: Mapping[str, str]) -> None:
    """Write what monitoring would have written: scorings, counts, estimates, drift, performance, decisions."""
    added = rows.group_by(["decision_time", "decision_date", "slot"]).aggregate(
        [("probability", "mean"), ("entity_id", "count")]
    )
    with engine.begin() as connection:
        connection.execute(
            insert(Scoring),
            [
                {
                    "use_case": USE.name, "decision_time": row["decision_time"], "model_version": 1,
                    "mlflow_run_id": "run", "slot": row["slot"], "decision_date": row["decision_date"],
                    "decisions": row["entity_id_count"], "mean_probability": row["probability_mean"],
                }
                for row in added.to_pylist()
            ],
        )  # fmt: skip
    replace_dates(engine, OutcomeCount, USE.name, year.days, outcome_counts(USE, rows))
    estimated = estimates(USE, rows)
    replace_dates(engine, Estimate, USE.name, year.days, estimated)
    rows = rows.append_column(
        "attributes.counterparty", pa.array(map(counterparties.get, rows["entity_id"].to_pylist()))
    )
    drift: list[dict[str, Any]] = []
    past: list[Past] = []
    trained = year.days[0]
    said = estimated.to_pylist()
    for number, day in enumerate(year.days):
        if number < 25:
            continue
        recent = pc.and_(
            pc.less_equal(rows["outcome_date"], pa.scalar(day)),
            pc.greater_equal(rows["outcome_date"], pa.scalar(day - _DRIFT_LOOKS)),
        )
        known = known_until(judged_rows(rows.filter(recent)), day)
        found = [*whole_finding(USE, known), *group_findings(USE, known)]
        table = drift_table(USE, day, found, drift)
        drift = [*drift[-400:], *table.to_pylist()]
        replace_dates(engine, Drift, USE.name, [day], table)
        if number % 5 == 0:
            window = matured_window(USE, rows, until=day)
            last = pc.max(window["outcome_date"]).as_py()
            replace_dates(engine, Performance, USE.name, [last], performance(USE, window))
        came = [row for row in said if day - timedelta(days=30) <= row["outcome_date"] < day]
        dates = with_drift(breaches(USE.monitoring, came), drift)
        facts = Facts(day, dates, 1, trained, new_labels=5000, past=past)
        decision = decide(USE.monitoring, facts)
        if decision.outcome == "retrain":
            trained = day  # and no challenger was better
        past = [*past[-30:], Past(day, decision.outcome, 1)]
        with engine.begin() as connection:
            connection.execute(
                insert(RetrainingDecision),
                {
                    "use_case": USE.name, "decision_date": day, "outcome": decision.outcome,
                    "reason": decision.reason, "numbers": {**decision.numbers}, "decided_at": day_end(day),
                    "dagster_run_id": "r",
                },
            )  # fmt: skip


def _feeds(year: Year, rng: np.random.Generator) -> None:
    """Make up the feeds: counts that vary by weekday and chance, a few late, a few dead letters; and plant outages."""
    usual = {event.name: int(PER_DAY * factor) for event, factor in zip(USE.events, (1, 1, 4, 1, 2, 2), strict=True)}
    names = list(usual)
    short = {(40, names[0]): 0.3, (85, names[1]): 0.0, (130, names[2]): 0.4, (180, names[4]): 0.0, (215, names[3]): 0.2}
    dirty = {(55, names[1]): 40, (140, names[0]): 12, (200, names[2]): 9}
    broken = {(70, names[1]): 0.2, (190, names[3]): 0.5}
    for number, day in enumerate(year.days):
        for name, mean in usual.items():
            weekday = 1 + 0.1 * (day.weekday() - 2)
            events = int(rng.poisson(mean * weekday * short.get((number, name), rng.lognormal(0, 0.08))))
            dead = int(rng.binomial(events, 0.0005)) + dirty.get((number, name), 0)
            rejected = int(rng.binomial(events, 0.0003)) + int(events * broken.get((number, name), 0))
            over = rejected > 0.01 * max(events, 1) and rejected > 5
            late = int(rng.binomial(events, 0.002))
            year.feeds.append(
                {"source": name, "business_date": day, "events": events, "late": late, "first_known_at": None,
                 "last_known_at": None, "median_delay_minutes": 0.2, "p95_delay_minutes": 0.4}
            )  # fmt: skip
            year.quality.append(
                {"source": name, "business_date": day, "kept": events - rejected, "rejected": rejected,
                 "dead_letters": dead, "beyond_limits": over}
            )  # fmt: skip
    for number, _ in short:
        year.plant("feed_stale_or_shrunken", number, 24, hour=0, late=timedelta(days=4))
    for number, _ in dirty:
        year.plant("dead_letters", number, 48, hour=0, late=timedelta(days=4))
    for number, _ in broken:
        year.plant("quarantine_rate", number, 24, hour=0, late=timedelta(days=8))


def _runs(year: Year, rng: np.random.Generator) -> None:
    """Make up the runs: some in each hour, one in fifty fails and goes well when tried again; and plant troubles."""
    jobs = ("settlement_fails_ingest", "settlement_fails_score", "settlement_fails_monitor", "maintenance")

    def add(job: str, queued: datetime, minutes: float, status: str, wait: float = 0.5) -> None:
        started = queued + timedelta(minutes=wait)
        year.runs.append(
            {"run_id": f"run-{len(year.runs)}", "job": job, "use_case": USE.name, "status": status,
             "queued_at": queued, "started_at": started, "ended_at": started + timedelta(minutes=minutes),
             "failure": None}
        )  # fmt: skip

    failing = {50: (9, 4, jobs[0]), 120: (10, 3, jobs[2]), 205: (8, 5, jobs[1])}
    for number in range(len(year.days)):
        for hour in range(6, 21):
            for job in jobs[:3]:
                queued = year.at(number, hour + float(rng.uniform(0, 0.7)))
                bad = failing.get(number)
                if bad is not None and job == bad[2] and bad[0] <= hour < bad[0] + bad[1]:
                    add(job, queued, 2, "FAILURE")
                elif rng.random() < 0.02:
                    add(job, queued, 2, "FAILURE")
                    add(job, queued + timedelta(minutes=4), 3, "SUCCESS")
                else:
                    add(job, queued, float(rng.lognormal(1.0, 0.8)), "SUCCESS")
    for number, (hour, hours, _) in failing.items():
        year.plant("runs_failed", number, hours, hour=hour)
    for number, hour in ((65, 8), (150, 9), (230, 7)):
        add(jobs[0], year.at(number, hour), 60 * 8, "FAILURE")
        year.plant("runs_stuck", number, 8, hour=hour, shows=("runs_failed",), late=timedelta(hours=24))
    for number, hour in ((100, 9),):
        add(jobs[3], year.at(number, hour), 20, "SUCCESS", wait=60 * 4)
        year.plant("runs_stuck", number, 4, hour=hour)


def _operations(engine: Engine, year: Year) -> None:
    """Plant what happens to lander, disk, alias, ledger and service."""
    for number, hours in ((45, 5), (95, 3), (160, 9), (220, 4)):
        for topic in TOPICS:
            year.outages.append((topic, year.at(number, 8), year.at(number, 8 + hours)))
        year.plant("lander_behind", number, hours, hour=8)
    for number in (90, 210):
        year.full.append((year.at(number, 7), year.at(number, 15)))
        year.plant("storage_nearly_full", number, 8)
    for number in (105, 185):
        year.apart.append((year.at(number, 9), year.at(number, 15)))
        year.plant("ledger_and_alias_apart", number, 6, hour=9)
    for number, hours in ((75, 30), (170, 50)):
        year.plant("approval_waits", number, hours, hour=9)
    year.plant("canary_taken_back", 145, 24, hour=11)
    lines = [
        (75, 8, "registered", 2), (75, 9, "requested", 2), (76, 16, "promoted", 2), (140, 9, "canary", 3),
        (145, 11, "canary_ended", 3), (170, 9, "requested", 4), (172, 11, "declined", 4), (180, 9, "requested", 5),
        (180, 15, "promoted", 5),
    ]  # fmt: skip
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(
            insert(Promotion),
            [
                {
                    "use_case": USE.name, "action": action, "to_version": version, "actor": "ann",
                    "is_person": action != "canary_ended", "needs_approval": False, "evidence_hash": "e",
                    "reason": "planted", "recorded_at": year.at(number, hour),
                    "share": 0.1 if action == "canary" else None,
                }
                for number, hour, action, version in lines
            ],
        )  # fmt: skip
        for number, hour in ((80, 9.5), (155, 12.2), (225, 7.7)):
            connection.execute(
                insert(LostAnswers),
                [
                    {
                        "recorded_at": year.at(number, hour + quarter / 4), "service": "pod-a",
                        "topic": "served_scores", "why": "queue full", "number": 250,
                    }
                    for quarter in range(16)
                ],
            )  # fmt: skip
            year.plant("answers_dropped", number, 4, hour=hour)


if __name__ == "__main__":
    main()
