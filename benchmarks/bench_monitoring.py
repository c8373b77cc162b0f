"""How soon planted changes are flagged, how often a quiet quarter is, and the speed beside evidently.

`make bench-monitoring` runs it.

`--keep` names a folder in which simulated days stay, so that limits can be tried again; `--seeds` and `--changed` say
how many markets are simulated, and in how many of them changes are planted. Evidently is no dependency of the project:
it gets an environment of its own, below a temporary folder. The page is written anew after each seed.
"""

import argparse
import json
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.bench_report import DOCS, page
from benchmarks.drift_days import Days, days_of
from benchmarks.recovery import FOR, FROM, recovery
from ml_assets.features.days import day_of
from ml_assets.learning.drift_reference import drift_reference, evenly
from ml_assets.learning.fit import FittedCandidate, fit_candidate
from ml_assets.learning.frames import FeatureNames
from ml_assets.learning.reasons import Explainer
from ml_assets.learning.slices import described, with_sources
from ml_assets.local.rehearsal.plan import shows_after
from ml_assets.local.simulation.market import Change, MarketConfig
from ml_assets.monitoring.drift import (
    FEATURE,
    Finding,
    date_findings,
    drift_table,
    group_findings,
    whole_finding,
)
from ml_assets_tests.usecases.settlement import USE_CASE

REPORT = DOCS / "benchmarks-monitoring.md"
What: TypeAlias = Literal["stress", "counterparty", "market", "feed", "late"]
CHANGES: tuple[What, ...] = ("stress", "counterparty", "market", "feed", "late")
TRAINED, PLANTED, QUIET = 54, 75, 115
ROWS = 1_000_000
EVIDENTLY = "evidently==0.7.23"
# Numerical columns, and by how many standard deviations they move.
MOVED = {"x0": 0.0, "x1": 0.0, "x2": 0.02, "x3": 0.05, "x4": 0.1, "x5": 0.5, "x6": 1.0, "x7": -0.7}
RECOVERY = (
    "What is instructed late fails far more often from one day on. Share of the best reachable lift, on the settlement "
    f"mornings of {FOR} business days from the {FROM}th on after the change shows, by when the logistic regression was "
    "trained, and from what: the usual training set, or the dates since the change alone:"
)
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
    given = asked.parse_args()
    beside = beside_evidently()
    beside += ["", RECOVERY, "", *recovery()]
    say(*beside)
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
        REPORT.write_text(report(quiet, lag, named, beside), encoding="utf-8")
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
    """Return the day on which a change can first be seen."""
    return days.days[PLANTED + shows_after(change)]


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
    groups = {source: source for source in USE_CASE.monitoring.drift.groups if source not in rows.column_names}
    known = pa.array([day_of(at) for at in rows["label_known_at"].to_pylist()], pa.date32())
    return with_sources(USE_CASE, rows, rows.select([*_KEYS, "attributes"]), groups).append_column("known_date", known)


def of_outcomes(rows: pa.Table, day: date) -> list[Finding]:
    """Return the findings on the outcomes that were known by the end of a day."""
    known = rows.filter(pc.and_(pc.less_equal(rows["known_date"], pa.scalar(day)),
                                pc.greater(rows["outcome_date"], pa.scalar(day - timedelta(days=32)))))  # fmt: skip
    return [*whole_finding(USE_CASE, known), *group_findings(USE_CASE, known)]


def beside_evidently() -> list[str]:
    """Return lines on a million decisions of ten columns: ours and evidently's verdicts and seconds.

    Raises:
        RuntimeError: evidently could not be installed or failed.
    """
    before, now = million(0), million(1)
    names = FeatureNames(tuple(MOVED), ("place", "kind"))
    reference = drift_reference(names, before, lambda rows: np.full(rows.num_rows, 0.05))
    day = date(2026, 3, 3)
    ours = float(np.median(list(seconds(lambda: date_findings(USE_CASE, names, reference, day, now, {}, ())))))
    found = date_findings(USE_CASE, names, reference, day, now, {}, ())
    psi = {one.name: one for one in found if one.kind == FEATURE and one.measure == "psi"}
    theirs = evidently(before.select([*names.all]), now.select([*names.all]))
    lines = [
        f"A million decisions of ten columns on one date, against a reference of {ROWS:,} on ten days:",
        "",
        "| what | seconds, median of 3 | times ours |",
        "| --- | ---: | ---: |",
        f"| ours: PSI, Jensen-Shannon, missing, new, by slot | {ours:.2f} | |",
    ]
    lines += [
        f"| {EVIDENTLY}, DataDriftPreset(method={method!r}) | {told['seconds']:.2f} | {told['seconds'] / ours:.0f} |"
        for method, told in theirs.items()
    ]
    lines += [
        "",
        "What each says of a column, by the stability index and by the Jensen-Shannon distance:",
        "",
        "| column | planted | ours: index, limit | | evidently: index | | evidently: distance | |",
        "| --- | --- | ---: | --- | ---: | --- | ---: | --- |",
    ]
    agree = 0
    for name in names.all:
        mine = psi[name]
        said = [name in theirs[method]["drifted"] for method in theirs]
        agree += said[0] == mine.breached
        index, distance = (theirs[method]["distance"][name] for method in theirs)
        lines.append(
            f"| {name} | {planted(name)} | {mine.value:.3f}, {mine.high:.3f} | {drifts(mine.breached)} | {index:.3f} | "
            f"{drifts(said[0])} | {distance:.3f} | {drifts(said[1])} |"
        )
    return [*lines, "", f"By the stability index the two agree on {agree} of {len(names.all)} columns."]


def drifts(said: bool) -> str:
    """Return a verdict in a word."""
    return "drift" if said else "none"


def planted(name: str) -> str:
    """Return what was done to a column of the newer table."""
    if name in MOVED:
        return f"moved by {MOVED[name]:g} standard deviations" if MOVED[name] else "nothing"
    return "a place that was one of twelve is nearly half of all" if name == "place" else "nothing"


def evidently(before: pa.Table, now: pa.Table) -> dict[str, dict[str, Any]]:
    """Return what evidently says of two tables by method: seconds, distance of each column, and which have drifted.

    Raises:
        RuntimeError: it could not be installed or failed.
    """
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        for name, rows in (("before", before), ("now", now)):
            pq.write_table(rows, folder / f"{name}.parquet")
        python, uv = folder / "peer" / "bin" / "python", Path(sys.executable).with_name("uv")
        script = Path(__file__).with_name("peer_evidently.py")
        for command in (
            [uv, "venv", "--quiet", "--python", sys.executable, folder / "peer"],
            # It imports what pandas 3 has no longer.
            [uv, "pip", "install", "--quiet", "--python", python, EVIDENTLY, "pandas<3", "pyarrow"],
            [python, script, folder],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{EVIDENTLY}: {' '.join(map(str, command[:4]))} failed: {done.stderr[-2000:]}")
    told: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return told


def million(seed: int) -> pa.Table:
    """Return decisions of a day on which some columns have moved (seed 1), or of ten days."""
    rng = np.random.default_rng(seed)
    days = 1 if seed else 10
    dates = [date(2026, 2, 2) + timedelta(days=n) for n in range(days)]
    columns = {name: rng.normal(seed * moved, 1, ROWS) for name, moved in MOVED.items()}
    places = np.full(12, 1 / 12) if not seed else np.array([0.45, *([0.05] * 11)])
    return pa.table(
        {
            "decision_date": pa.array(np.repeat(np.array(dates, "datetime64[D]"), ROWS // days)),
            "slot": pa.array(np.tile(["morning", "evening"], ROWS // 2)),
            "part": pa.array(np.full(ROWS, "train")),
            "probability": rng.beta(1, 15, ROWS),
            **columns,
            "place": rng.choice([f"place {n}" for n in range(12)], ROWS, p=places),
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
    quiet: Sequence[int], lag: dict[str, list[int | None]], named: dict[str, list[str]], beside: Sequence[str]
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
            *beside,
        ],
    )


def say(*lines: object) -> None:
    """Print for who runs it."""
    print(*lines, sep="\n  ", flush=True)  # noqa: T201 - this is what it is for


if __name__ == "__main__":
    main()
