"""`make bench-morning`: the morning of 50,000, 100,000 and 200,000 open instructions, stage by stage.

A model is trained on a small market as in the rehearsal; then a large one lands through the broker, which is not
measured. The morning is 07:05: half of the open instructions settle today. Features and scores are made anew of all
slots of the day before and of this morning, so of twice as many decisions as are open.
"""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time
from pathlib import Path
from time import perf_counter, process_time

from benchmarks.bench_report import DOCS, page
from ml_assets.database.promotions import Actor
from ml_assets.database.work_list import work_list
from ml_assets.landing.heartbeat import Heartbeats
from ml_assets.landing.kafka import KafkaConnection
from ml_assets.landing.landed import look
from ml_assets.landing.lander import Lander
from ml_assets.landing.produce import produce
from ml_assets.lifecycle.drift import measure_drift
from ml_assets.lifecycle.features import compute_features, mature_labels
from ml_assets.lifecycle.ingestion import curate_dates
from ml_assets.lifecycle.monitoring import decide_retraining, join_live_outcomes, measure_performance
from ml_assets.lifecycle.reports import make_report, report_of
from ml_assets.lifecycle.scoring import score_dates
from ml_assets.lifecycle.shadow import judge_and_roll_back
from ml_assets.lifecycle.training import RunOrigin
from ml_assets.local.embedded.environment import kafka_connection
from ml_assets.local.rehearsal.plan import Plan
from ml_assets.local.rehearsal.run import played
from ml_assets.local.simulation.market import Market, simulate
from ml_assets.platform import Platform
from ml_assets.settings import Settings
from ml_assets.spec import UseCase
from ml_assets.usecases.settlement_fails.usecase import USE_CASE

REPORT = DOCS / "benchmarks-morning.md"
OPEN = (50_000, 100_000, 200_000)
MORNING = time(7, 5)
DAYS = 5


@dataclass
class Stages:
    """Seconds and processor seconds by stage, and what came of them."""

    opened: int
    wall: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    decisions: int = 0

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Measure a stage."""
        began, used = perf_counter(), process_time()
        yield
        self.wall[stage], self.cpu[stage] = perf_counter() - began, process_time() - used


def main() -> None:
    """Measure and write the page."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--open", type=int, nargs="+", default=OPEN, help="open instructions of each morning")
    asked.add_argument("--threads", type=int, default=2)
    asked.add_argument("--out", type=Path, default=REPORT)
    given = asked.parse_args()
    plan = Plan(days=1, changes=(), bad_challenger=None)
    found = []
    for opened in given.open:
        with tempfile.TemporaryDirectory() as home:
            settings = Settings(home=Path(home), threads=given.threads)
            with played(settings, plan, USE_CASE) as (year, platform):
                usecase = replace(year.usecase, capacity=USE_CASE.capacity)
                config = replace(
                    plan.market(usecase), start=usecase.calendar.next(year.mornings[-1].date), days=DAYS,
                    instructions_per_day=opened // 2,
                )  # fmt: skip
                found.append(morning(simulate(config), usecase, platform, kafka_connection(platform.settings), opened))
                print(found[-1], flush=True)  # noqa: T201 - it takes long
    given.out.write_text(report(found, given.threads), encoding="utf-8")


def land(market: Market, usecase: UseCase, platform: Platform, kafka: KafkaConnection, now: datetime) -> None:
    """Land what has happened by a morning and curate it."""
    lake, before = platform.lake, look(platform.lake, usecase.events)[0]
    produce(kafka, market.between(datetime.combine(market.config.start, time(), UTC), now))
    Lander(lake, usecase.events, kafka, clock="replay").land_available()
    for event in usecase.events:
        Heartbeats(lake, kafka.admin(), "live").note(event, 2, {0: now, 1: now})
        for day in look(lake, [event], before)[1].dates:
            curate_dates(lake, usecase, event, [day])


def morning(market: Market, usecase: UseCase, platform: Platform, kafka: KafkaConnection, opened: int) -> Stages:
    """Return what a morning takes, on which the outcomes of the day before have become known."""
    lake, registry, engine, threads = platform.lake, platform.registry, platform.engine, platform.settings.threads
    yesterday, today = market.world.calendar[2], market.world.calendar[3]
    now = datetime.combine(today, MORNING, UTC)
    origin, stages = RunOrigin(platform.code, "bench"), Stages(opened)
    land(market, usecase, platform, kafka, now)
    # What was done on the mornings before.
    before = [market.world.calendar[0], market.world.calendar[1]]
    compute_features(lake, usecase, before, threads=threads)
    score_dates(lake, registry, engine, usecase, before, origin, threads=threads, despite="another market")
    dates = [yesterday, today]
    with stages.timed("features"):
        stages.decisions = compute_features(lake, usecase, dates, until=now, threads=threads).rows
    with stages.timed("labels"):
        mature_labels(lake, usecase, [today], threads=threads)
    with stages.timed("scores, work-list"):
        score_dates(lake, registry, engine, usecase, dates, origin, threads=threads, despite="another market")
        work_list(engine, usecase.name, today, usecase.capacity, usecase.action)
    with stages.timed("outcomes"):
        join_live_outcomes(lake, engine, usecase, dates)
    with stages.timed("performance, estimates"):
        measure_performance(lake, registry, engine, usecase, [today], threads=threads)
    with stages.timed("drift"):
        measure_drift(lake, registry, engine, usecase, [today], threads=threads)
    with stages.timed("shadow, decision"):
        judge_and_roll_back(lake, registry, engine, usecase, today, Actor.run("bench"))
        decide_retraining(lake, registry, engine, usecase, [today], "bench")
    with stages.timed("report"):
        daily = report_of(usecase, "daily_operations")
        make_report(lake, engine, usecase, daily, today, platform.settings.report_uri, threads=threads)
    return stages


def report(found: list[Stages], threads: int) -> str:
    """Return the page: a row a stage, a column a size."""
    head = " | ".join(f"{one.opened:,} open" for one in found)
    lines = [f"| stage, seconds (of the processor) | {head} |", "| --- |" + " ---: |" * len(found)]
    for stage in found[0].wall:
        lines.append(f"| {stage} | " + " | ".join(f"{o.wall[stage]:.1f} ({o.cpu[stage]:.1f})" for o in found) + " |")
    total = " | ".join(f"**{sum(o.wall.values()):.0f}** ({sum(o.cpu.values()):.0f})" for o in found)
    each = " | ".join(f"{1e6 * sum(o.cpu.values()) / o.opened:,.0f}" for o in found)
    lines += [f"| all | {total} |", f"| processor, microseconds an open instruction | {each} |"]
    about = ["Written by `make bench-morning`: what is due at 07:05, in one process, stage by stage."]
    made = ", ".join(f"{one.decisions:,}" for one in found)
    return page("The morning of many open instructions", about, [f"{threads} threads; decisions made: {made}"], lines)


if __name__ == "__main__":
    main()
