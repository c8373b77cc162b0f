"""`make reach`: how much of what can be known settlement_fails finds, at three volumes and in a drifted regime.

The simulator draws each outcome from a known probability, so the best reachable metrics are known. Each market is
made, its features and labels by the use case's SQL, its candidates as in production; the report is docs/reach.md.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import pyarrow as pa

from benchmarks.bench_report import DOCS, page
from ml_assets.learning.compare import choose_challenger
from ml_assets.learning.fit import fit_candidate
from ml_assets.learning.metrics import evaluate, share_of_best
from ml_assets.learning.training_set import part_of
from ml_assets.learning.window import Window
from ml_assets.local.demo import true_probabilities
from ml_assets.local.simulation.market import Market, MarketConfig, simulate
from ml_assets.usecases.settlement_fails.usecase import USE_CASE
from ml_assets_tests.usecases.settlement import curated_market, references, training_set_of

BEST = "what can be known"
REPORT = DOCS / "reach.md"
SCENARIOS = {
    "1,000 a day": MarketConfig(instructions_per_day=1000),
    "4,000 a day, the demo's": MarketConfig(instructions_per_day=4000),
    "8,000 a day": MarketConfig(instructions_per_day=8000),
    "4,000 a day, drifted": MarketConfig(instructions_per_day=4000, stress=True),
}


@dataclass(frozen=True)
class Reached:
    """What a candidate found on the unseen decisions of a market, as shares of what can be known.

    `of_drawn` are the same shares, of lift and of skill, of what the probabilities find from which outcomes were drawn.
    """

    market: str
    decisions: int
    candidate: str
    is_challenger: bool
    pr_auc: float
    of_lift: float
    of_skill: float
    of_drawn: tuple[float, float]
    calibration_error: float


def main(names: Sequence[str] = tuple(SCENARIOS)) -> None:
    """Measure the named markets and write the report."""
    started = perf_counter()
    rows = []
    for name in names:
        for reached in measure(name, SCENARIOS[name]):
            rows.append(reached)
            print(line(reached), flush=True)  # noqa: T201 - a whole run takes many minutes
    REPORT.write_text(report(rows, perf_counter() - started), encoding="utf-8")
    print(REPORT.read_text(encoding="utf-8"))  # noqa: T201 - this is what it is for


def measure(name: str, config: MarketConfig, *, threads: int = 2) -> Iterator[Reached]:
    """Yield what each candidate of the use case reaches on a simulated market."""
    market = simulate(config)
    rows = training_set(market, threads=threads)
    window = Window.of(part_of(rows, "test"))
    with tempfile.TemporaryDirectory() as folder:
        truth = Path(folder) / "truth.parquet"
        market.write_truth(truth)
        best, drawn = (
            evaluate(window, true_probabilities(truth, window, column), capacity=USE_CASE.capacity)
            for column in ("reachable", "probability")
        )
    fitted = {c.name: fit_candidate(USE_CASE, c, rows, threads=threads).metrics for c in USE_CASE.candidates}
    validation = {candidate: metrics["validation"] for candidate, metrics in fitted.items()}
    challenger = choose_challenger(validation, USE_CASE.gate.indifference)
    for candidate, metrics in {**fitted, BEST: best}.items():
        yield Reached(
            market=name,
            decisions=len(window),
            candidate=candidate,
            is_challenger=candidate == challenger,
            pr_auc=metrics["pr_auc"],
            of_lift=share_of_best(metrics, best, "lift"),
            of_skill=share_of_best(metrics, best, "brier_skill"),
            of_drawn=(share_of_best(metrics, drawn, "lift"), share_of_best(metrics, drawn, "brier_skill")),
            calibration_error=metrics["calibration_error"],
        )


def training_set(market: Market, *, threads: int) -> pa.Table:
    """Return the training set as of the end of the market's last day: features and labels by the use case's SQL."""
    with tempfile.TemporaryDirectory() as folder:
        return training_set_of(
            USE_CASE, market, curated_market(market), references(market, Path(folder)), threads=threads
        )


def report(rows: Sequence[Reached], seconds: float) -> str:
    """Return the page: a row a market and candidate, the challenger in bold, last what can be known itself."""
    about = [
        "Written by `make reach`. Shares of the PR-AUC lift and of the Brier skill that the simulator's true",
        "probabilities, given what has shown by the decision, have on the same unseen decisions; bold: the candidate",
        "that the folds before them chose.",
    ]
    if any(SCENARIOS[row.market].stress for row in rows):
        about += [
            "",
            "The drifted market has a fortnight of stress, twice the fails, in its last third: the models learn in it",
            "and are tested after it, from its last day on. Nothing shows a day's stress but the outcomes of that day,",
            "two business days later: what can be known takes the stress that has shown to last. Shares of *drawn* are",
            "of what the probabilities find from which the outcomes were drawn. They know each day's stress when it is",
            "decided, so that nobody can reach all of it; without stress the two are the same.",
        ]
    table = [
        "| market | decisions | candidate | PR-AUC | of best lift | of best skill | of drawn lift | of drawn skill | "
        "calibration error |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    table += [line(row) for row in rows]
    return page("settlement_fails: what it reaches of what can be known", about, [f"it took {seconds:.0f} s"], table)


def line(row: Reached) -> str:
    """Return the line of the page's table for a candidate on a market."""
    bold = "**" if row.is_challenger else ""
    return (
        f"| {row.market} | {row.decisions:,} | {bold}{row.candidate}{bold} | {row.pr_auc:.3f} | {row.of_lift:.1%} "
        f"| {row.of_skill:.1%} | {row.of_drawn[0]:.1%} | {row.of_drawn[1]:.1%} | {row.calibration_error:.4f} |"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=SCENARIOS, action="append", help="measure this market only; may be repeated")
    main(parser.parse_args().only or tuple(SCENARIOS))
