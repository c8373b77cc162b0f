"""How much of a lost lift a retraining gives back: from the usual training set, and from the dates since the change."""

from collections.abc import Iterator
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from benchmarks.drift_days import Days, days_of
from ml_assets.learning.fit import fit_candidate
from ml_assets.learning.statistics import average_precision
from ml_assets.local.rehearsal.plan import LATE, shows_after
from ml_assets.local.simulation.market import Change, MarketConfig, simulate
from ml_assets.local.simulation.truth import truth_table
from ml_assets_tests.usecases.settlement import USE_CASE

# Business day of the change, and the one on which it shows.
CHANGED, DAYS = 70, 110
SHOWN = CHANGED + shows_after(LATE)
# Business days after it shows on which a model is trained, as usual and from the dates since then alone.
AS_USUAL, SINCE = (10, 18, 28), (7, 8, 10)
# Judged is what the champion of the tenth business day after it scores, for so many business days.
FROM, FOR = 10, 20
SIZES = (500, 2_000)


def recovery() -> Iterator[str]:
    """Yield a table in Markdown: by size of the market the share of the best lift, by when and how it was trained."""
    usual, since = (", ".join(map(str, each)) for each in (AS_USUAL, SINCE))
    yield f"| instructions a day | before | not retrained | as usual, {usual} days after | since the change, {since} |"
    yield "| ---: | ---: | ---: | --- | --- |"
    for size in SIZES:
        market = MarketConfig(
            instructions_per_day=size, counterparties=30 if size < 1000 else 60, securities=120 if size < 1000 else 400,
            seed=1, dirty=0, days=DAYS, changes=(Change(LATE, CHANGED),),
        )  # fmt: skip
        judged = _Judged(market)
        usual, since = (
            ", ".join(f"{judged.lift(SHOWN + after, since=alone):.0%}" for after in each)
            for each, alone in ((AS_USUAL, False), (SINCE, True))
        )
        before, never = judged.lift_before(), judged.lift(SHOWN - 2)
        yield f"| {size:,} | {before:.0%} | {never:.0%} | {usual} | {since} |"


class _Judged:
    """The decisions on the settlement mornings of a market, with the truth about each."""

    def __init__(self, market: MarketConfig) -> None:
        self.days: Days = days_of(market)
        simulated = simulate(market)
        truth = truth_table(simulated.world, simulated.instructions)
        of_slot = self.days.features.filter(pc.equal(self.days.features["slot"], USE_CASE.slots[0].name))
        truth = truth.select(["entity_id", "slot", "probability", "outcome"])
        self.rows: pa.Table = of_slot.join(truth, keys=["entity_id", "slot"], join_type="inner")
        self.dates = self.rows["decision_date"].to_numpy()

    def lift_before(self) -> float:
        """Return the share of the best lift that the champion had in the ten business days before the change."""
        return self._share(self._scores(SHOWN - 2, since=False), SHOWN - 10, SHOWN)

    def lift(self, trained: int, *, since: bool = False) -> float:
        """Return the share of the best lift after the change, of a model trained as of the end of a business day."""
        return self._share(self._scores(trained, since=since), SHOWN + FROM, SHOWN + FROM + FOR)

    def _scores(self, trained: int, *, since: bool) -> NDArray[np.float64]:
        change: date = self.days.days[SHOWN]
        usecase = USE_CASE.learning_since(change, self.days.days[trained]) if since else USE_CASE
        logistic = next(one for one in usecase.candidates if one.name == "logistic")
        rows = self.days.training_set(trained, usecase, change if since else None)
        return fit_candidate(usecase, logistic, rows, threads=1).scorer.score(self.rows)

    def _share(self, scores: NDArray[np.float64], first: int, end: int) -> float:
        days = np.array(self.days.days[first:end], dtype="datetime64[D]")
        of = np.isin(self.dates, days)
        failed = self.rows["outcome"].to_numpy().astype(np.float64)[of]
        mine, best = (average_precision(failed, p[of]) for p in (scores, self.rows["probability"].to_numpy()))
        return float((mine - failed.mean()) / (best - failed.mean()))
