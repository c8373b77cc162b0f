"""How soon planted changes are flagged, how often a quiet quarter is, and the speed beside evidently.

`make bench-monitoring` runs it.

`--keep` names a folder in which simulated days stay, so that limits can be tried again; `--seeds` and `--changed` say
how many markets are simulated, and in how many of them changes are planted. Evidently is no dependency of the project:
`--evidently` names the Python of another environment that has it; without, its rows are left out.
"""

import argparse
import pickle
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.bench_report import DOCS, page
from benchmarks.drift_days import Days, days_of
from ml_assets.features.days import day_of
from ml_assets.learning.drift_reference import drift_reference, evenly
from ml_assets.learning.fit import FittedCandidate, fit_candidate
from ml_assets.learning.frames import FeatureNames
from ml_assets.learning.reasons import Explainer
from ml_assets.learning.slices import described, with_sources
from ml_assets.local.simulation.market import Change, MarketConfig
from ml_assets.monitoring.drift import (
    Finding,
    date_findings,
    drift_table,
    group_findings,
    whole_finding,
)
from ml_assets_tests.usecases.settlement import USE_CASE

REPORT = DOCS / "benchmarks-monitoring.md"
CHANGES: tuple[Literal["stress", "counterparty", "market", "feed"], ...] = ("stress", "counterparty", "market", "feed")
TRAINED, PLANTED, QUIET = 54, 75, 115
ROWS = 1_000_000
_KEYS = ["entity_id", "decision_time"]


@dataclass
class Story:
    """What was flagged of a market after its model was trained: by date, what drifted."""

    drifted: dict[date, list[str]] = field(default_factory=dict)

    @property
    def alarms(self) -> list[tuple[date, list[str]]]:
        """The dates on which something drifts that had not drifted on the date before."""
        days = sorted(self.drifted)
        new = [
            (day, [one for one in self.drifted[day] if number == 0 or one not in self.drifted[days[number - 1]]])
            for number, day in enumerate(days)
        ]
        return [(day, what) for day, what in new if what]


def main() -> None:
    """Measure and write the page."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--seeds", type=int, default=20)
    asked.add_argument("--changed", type=int, default=6)
    asked.add_argument("--keep", type=Path)
    asked.add_argument("--evidently", help="the Python of an environment that has evidently")
    given = asked.parse_args()
    quiet: list[int] = []
    lag: dict[str, list[int | None]] = {change: [] for change in CHANGES}
    named: dict[str, list[str]] = {change: [] for change in CHANGES}
    for seed in range(1, given.seeds + 1):
        days = kept(given.keep, config(seed, days=QUIET))
        model = trained(days)
        story = judge(days, model, days.days[TRAINED + 1 :])
        quiet.append(len(story.alarms))
        say(f"seed {seed}: {len(story.alarms)} alarms in a quiet quarter", *story.alarms)
        for change in CHANGES if seed <= given.changed else ():
            planted = Change(change, PLANTED, PLANTED + 10 if change == "stress" else None)
            changed = days.but(kept(given.keep, config(seed, days=PLANTED + 8, changes=(planted,)), PLANTED))
            story = judge(changed, model, changed.days[TRAINED + 1 :])
            since = changed.days.index(first_shown(changed, change))
            found = [
                (changed.days.index(day) - since, what)
                for day, what in story.alarms
                if changed.days.index(day) >= since
            ]
            lag[change].append(found[0][0] if found else None)
            named[change].append(found[0][1][0] if found else "")
            say(f"seed {seed}, {change}: {found[:2]}")
    REPORT.write_text(report(quiet, lag, named, speed(given.evidently)), encoding="utf-8")
    say(REPORT.read_text(encoding="utf-8"))


def config(seed: int, **more: Any) -> MarketConfig:
    """Return the configuration of a market of the campaign."""
    return MarketConfig(instructions_per_day=500, counterparties=30, seed=seed, dirty=0, **more)


def kept(folder: Path | None, of: MarketConfig, first: int = 0) -> Days:
    """Return the days of a market, from the folder if they are there."""
    file = folder / f"{of.seed}-{of.changes[0].what if of.changes else 'quiet'}.pickle" if folder else None
    if file and file.is_file():
        return pickle.loads(file.read_bytes())
    days = days_of(of, first)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pickle.dumps(days))
    return days


def trained(days: Days) -> FittedCandidate:
    """Return the logistic candidate as of the day of training."""
    candidate = next(one for one in USE_CASE.candidates if one.name == "logistic")
    return fit_candidate(USE_CASE, candidate, days.training_set(TRAINED), threads=1)


def first_shown(days: Days, change: str) -> date:
    """Return the day on which a change can first be seen: trades of a day settle two business days later."""
    return days.days[PLANTED + (2 if change in ("stress", "counterparty") else 0)]


def judge(days: Days, model: FittedCandidate, judged: Sequence[date]) -> Story:
    """Return what the rules of monitoring say of each day, as of its end."""
    story, earlier = Story(), []
    outcomes = last_decisions(days, model)
    for day in judged:
        rows = drift_table(USE_CASE, day, [*of_decisions(days, model, day), *of_outcomes(outcomes, day)], earlier)
        found = rows.to_pylist()
        earlier = [row for row in [*earlier, *found] if row["decision_date"] > day - timedelta(days=14)]
        story.drifted[day] = [f"{row['kind']} {row['name']}" for row in found if row["drifted"]]
    return story


def of_decisions(days: Days, model: FittedCandidate, day: date) -> list[Finding]:
    """Return the findings on a day's decisions."""
    reference, names = model.scorer.manifest.reference, model.scorer.manifest.features
    assert reference is not None
    assert reference.drift is not None
    rows = days.features.filter(pc.equal(days.features["decision_date"], pa.scalar(day)))
    rows = rows.sort_by([("decision_time", "ascending"), ("entity_id", "ascending")])
    rows = described(USE_CASE, rows, rows.select([*_KEYS, "attributes"]))
    rows = rows.append_column("probability", pa.array(model.scorer.score(rows)))
    explain, causes = Explainer(USE_CASE, model.scorer).mean_contributions, {}
    for slot in pc.unique(rows["slot"]).to_pylist():
        part = rows.filter(pc.equal(rows["slot"], slot))
        causes[slot] = explain(part.take(pa.array(evenly(len(part), 256))))
    return date_findings(USE_CASE, names, reference.drift, day, rows, causes, [slot.name for slot in USE_CASE.slots])


def last_decisions(days: Days, model: FittedCandidate) -> pa.Table:
    """Return the decisions on the morning of the settlement date with probability, outcome and counterparty."""
    rows = days.features.filter(pc.equal(days.features["slot"], "isd_morning"))
    rows = rows.append_column("probability", pa.array(model.scorer.score(rows)))
    labels = days.labels.select([*_KEYS, "label", "label_known_at"])
    rows = rows.join(labels, keys=_KEYS, join_type="inner")
    rows = rows.sort_by([("decision_time", "ascending"), ("entity_id", "ascending")])
    groups = {source: source for source in USE_CASE.monitoring.drift.groups}
    known = pa.array([day_of(at) for at in rows["label_known_at"].to_pylist()], pa.date32())
    return with_sources(USE_CASE, rows, rows.select([*_KEYS, "attributes"]), groups).append_column("known_date", known)


def of_outcomes(rows: pa.Table, day: date) -> list[Finding]:
    """Return the findings on the outcomes that were known by the end of a day."""
    known = rows.filter(pc.and_(pc.less_equal(rows["known_date"], pa.scalar(day)),
                                pc.greater(rows["outcome_date"], pa.scalar(day - timedelta(days=32)))))  # fmt: skip
    return [*whole_finding(USE_CASE, known), *group_findings(USE_CASE, known)]


def speed(python: str | None) -> list[str]:
    """Return rows of a table: seconds for a million decisions of ten columns, ours and evidently's."""
    before, now = million(0), million(1)
    names = FeatureNames(tuple(f"x{i}" for i in range(8)), ("place", "kind"))
    reference = drift_reference(names, before, lambda rows: np.full(rows.num_rows, 0.05))
    ours = list(seconds(lambda: date_findings(USE_CASE, names, reference, date(2026, 3, 3), now, {}, ())))
    lines = [f"| ours: PSI, Jensen-Shannon, missing, new, by slot | {np.median(ours):.2f} | |"]
    if python is None:
        return lines
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in (("before", before), ("now", now)):
            pq.write_table(rows.select([*names.all]), Path(folder) / f"{name}.parquet")
        script = Path(__file__).with_name("peer_evidently.py")
        told = subprocess.run([python, script, folder], capture_output=True, text=True, check=True).stdout
    for line in told.splitlines():
        what, took = line.rsplit(" ", 1)
        lines.append(f"| {what} | {float(took):.2f} | {float(took) / np.median(ours):.0f} |")
    return lines


def million(seed: int) -> pa.Table:
    """Return decisions of a day (seed 1) or of ten days."""
    rng = np.random.default_rng(seed)
    days = 1 if seed else 10
    dates = [date(2026, 2, 2) + timedelta(days=n) for n in range(days)]
    columns = {f"x{i}": rng.normal(0.02 * seed * i, 1, ROWS) for i in range(8)}
    return pa.table(
        {
            "decision_date": pa.array(np.repeat(np.array(dates, "datetime64[D]"), ROWS // days)),
            "slot": pa.array(np.tile(["morning", "evening"], ROWS // 2)),
            "part": pa.array(np.full(ROWS, "train")),
            "probability": rng.beta(1, 15, ROWS),
            **columns,
            "place": rng.choice([f"place {n}" for n in range(12)], ROWS),
            "kind": rng.choice(["a", "b", "c"], ROWS),
        }
    )


def seconds(work: Any, rounds: int = 3) -> Iterator[float]:
    """Yield the seconds of each round."""
    for _ in range(rounds):
        started = perf_counter()
        work()
        yield perf_counter() - started


def report(
    quiet: Sequence[int], lag: dict[str, list[int | None]], named: dict[str, list[str]], speeds: Sequence[str]
) -> str:
    """Return the page."""
    lines = ["| change | seeds | flagged within 3 business days | days until it is, median and most | first named as |",
             "| --- | ---: | ---: | --- | --- |"]  # fmt: skip
    for change, days in lag.items():
        known = [one for one in days if one is not None]
        often = max(set(named[change]), key=named[change].count) if named[change] else ""
        said = f"{np.median(known):.0f}, {max(known)}" if known else "never"
        lines.append(f"| {change} | {len(days)} | {sum(one <= 3 for one in known)} | {said} | {often} |")
    return page(
        "Benchmarks of monitoring",
        ["Written by `make bench-monitoring`. A change counts from the first business day that shows it."],
        [
            f"settlement_fails, logistic trained as of day {TRAINED} of 500 instructions a day and 30 counterparties",
            f"quiet: {QUIET - TRAINED - 1} business days after training without retraining, {len(quiet)} seeds: "
            f"{np.mean(quiet):.2f} alarms a quarter on average, at most {max(quiet)}; {sum(n <= 1 for n in quiet)} of "
            "the seeds have at most one",
        ],
        [
            *lines,
            "",
            f"A million decisions of ten columns on one date, against a reference of {ROWS:,} on ten days:",
            "",
            "| what | seconds, median of 3 | times ours |",
            "| --- | ---: | ---: |",
            *speeds,
        ],
    )


def say(*lines: object) -> None:
    """Print for who runs it."""
    print(*lines, sep="\n  ", flush=True)  # noqa: T201 - this is what it is for


if __name__ == "__main__":
    main()
