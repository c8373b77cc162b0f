"""How trained models behave: what must not matter, which way things push, what must be certain, what must be stable.

Each test asks a model trained on a small simulated market, through the code that scores in production. Features are
changed where the claim is about the model, events where it is about features and model together.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ml_assets.features import AsOfDatabase
from ml_assets.learning.candidates import hist_gradient_boosting, lightgbm, logistic
from ml_assets.learning.fit import FittedCandidate, fit_candidate
from ml_assets.learning.frames import model_frame
from ml_assets.learning.statistics import average_precision
from ml_assets.learning.training_set import part_of
from ml_assets.local.simulation.market import MarketConfig
from ml_assets.spec import DecisionTime, SplitSpec
from ml_assets.usecases.settlement_fails.usecase import USE_CASE
from ml_assets_tests.usecases.settlement import training_set_of

MARKET = MarketConfig(days=13, instructions_per_day=700, counterparties=12, securities=50, dirty=0)
USECASE = replace(USE_CASE, split=SplitSpec(train_days=6, calibration_days=1, test_days=2))
# The use case's own, with leaves for some thousand decisions instead of some hundred thousand.
LEARNERS = (
    logistic(),
    lightgbm(n_estimators=150, learning_rate=0.1, num_leaves=5, min_child_samples=30, subsample_freq=0),
    hist_gradient_boosting(max_iter=100, learning_rate=0.12, max_leaf_nodes=5, min_samples_leaf=30),
)


@pytest.fixture(scope="module")
def training_set(market, events, market_references) -> pa.Table:
    return training_set_of(USECASE, market, events, market_references)


@pytest.fixture(scope="module")
def models(training_set) -> dict[str, FittedCandidate]:
    return {candidate.name: fit_candidate(USECASE, candidate, training_set, threads=1) for candidate in LEARNERS}


@pytest.fixture(scope="module", params=[candidate.name for candidate in LEARNERS])
def model(request, models) -> FittedCandidate:
    return models[request.param]


@pytest.fixture(scope="module")
def unseen(training_set, models) -> pd.DataFrame:
    """The features of the test window."""
    return model_frame(next(iter(models.values())).scorer.manifest.features, part_of(training_set, "test"))


def decision_on(market, slot="isd_morning") -> DecisionTime:
    at = next(s.at for s in USECASE.slots if s.name == slot)
    return DecisionTime(slot, datetime.combine(market.world.calendar[10], at, tzinfo=UTC))


def renamed(table: pa.Table) -> pa.Table:
    """The table with other names of instructions, trades, securities and counterparties."""
    for name in {"instruction_id", "uti", "isin", "counterparty_lei", "lei", "event_id"} & set(table.column_names):
        other = pc.utf8_reverse(table[name])  # also turns their order around
        table = table.set_column(table.column_names.index(name), name, other)
    return table


def test_names_do_not_matter(model, market, events, market_references):
    """Invariance: a model that knew its counterparties or securities by name would say other things of renamed ones."""
    decision, scores = decision_on(market), []
    for rename in (lambda table: table, renamed):
        with AsOfDatabase(
            USECASE,
            {name: rename(table) for name, table in events.items()},
            {name: rename(table) for name, table in market_references.items()},
            threads=1,
        ) as db:
            rows = db.features(decision)
        scores.append(dict(zip(rows["entity_id"].to_pylist(), model.scorer.score(rows), strict=True)))
    assert len(scores[0]) > 500
    assert {name[::-1] for name in scores[1]} == set(scores[0])
    for name, probability in scores[0].items():
        assert scores[1][name[::-1]] == pytest.approx(probability, abs=1e-6)


def test_less_inventory_means_more_fails_to_deliver(model, market, events, market_references):
    """Direction, from the events on: the evening's position of every security falls below zero."""
    decision = decision_on(market)
    positions = events["inventory_positions"]
    index = positions.column_names.index("available_quantity")
    short = positions.set_column(index, "available_quantity", pa.array([-1_000] * len(positions), pa.int64()))
    long = positions.set_column(index, "available_quantity", pa.array([1_000_000] * len(positions), pa.int64()))
    told = []
    for inventory in (long, short):
        with AsOfDatabase(USECASE, {**events, "inventory_positions": inventory}, market_references, threads=1) as db:
            told.append(db.features(decision))
    before, after = (model.scorer.score(rows) for rows in told)
    we_deliver = pc.equal(told[1]["lacks_inventory"], 1).to_numpy()
    assert 0.3 < we_deliver.mean() < 0.7
    assert (after[we_deliver] >= before[we_deliver]).mean() > 0.97
    assert after[we_deliver].mean() > 1.5 * before[we_deliver].mean()
    assert np.allclose(after[~we_deliver], before[~we_deliver], atol=1e-9), "what we receive, others must have"


def test_what_is_put_on_hold_fails_more_and_what_is_released_does_not(model, market, events, market_references):
    """Direction, from the events on: each instruction is put on hold on the eve of its settlement date."""
    decision = decision_on(market)
    eve = decision.as_of - timedelta(hours=12)

    def told(status: pa.Table, moment: datetime, reason: str) -> pa.Table:
        instructions = events["settlement_instructions"]
        due = pc.equal(instructions["intended_settlement_date"], pa.scalar(decision.decision_date))
        ids = instructions.filter(due)["instruction_id"].to_pylist()
        seen = dict.fromkeys(("event_time", "known_at", "broker_time"), moment) | {"status": "PEND", "reason": reason}
        first = status.slice(0, 1).to_pylist()[0] | seen
        rows = [first | {"instruction_id": name, "event_id": f"{name} {reason} {moment}"} for name in ids]
        dated = [row | {"business_date": moment.date()} for row in rows]
        return pa.concat_tables([status, pa.Table.from_pylist(dated, status.schema)])

    released = told(events["settlement_status"], eve, "FUTU")
    on_hold = told(released, eve + timedelta(hours=1), "PREA")
    released_again = told(on_hold, eve + timedelta(hours=2), "FUTU")
    probabilities = []
    for status in (released, on_hold, released_again):
        with AsOfDatabase(USECASE, {**events, "settlement_status": status}, market_references, threads=1) as db:
            probabilities.append(model.scorer.score(db.features(decision)))
    before, held, after = probabilities
    assert (held >= before).mean() > 0.97
    assert held.mean() > 2 * before.mean()
    assert np.array_equal(after, before)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        # With the points that the checklist gives for it: they never move alone.
        (
            {"lacks_inventory": 0, "lacks_inventory_on_isd": 0, "checklist_points": 1},
            {"lacks_inventory": 1, "lacks_inventory_on_isd": 0, "checklist_points": 3},
        ),
        ({"on_hold_at": "NONE", "checklist_points": 1}, {"on_hold_at": "isd_minus_1", "checklist_points": 3}),
        ({"on_hold_at": "isd_minus_1"}, {"on_hold_at": "isd_morning"}),
        ({"differs_from_ssi": 0, "checklist_points": 1}, {"differs_from_ssi": 1, "checklist_points": 3}),
        (
            {"matching_status": "MACH", "unmatched_on_isd": 0, "checklist_points": 1},
            {"matching_status": "NMAT", "unmatched_on_isd": 1, "checklist_points": 4},
        ),
        (
            {"counterparty_relative_rate": -1, "prior_log_odds": -4},
            {"counterparty_relative_rate": 1, "prior_log_odds": -2},
        ),
        ({"log_borrowing_fee": 2, "checklist_points": 1.1}, {"log_borrowing_fee": 5, "checklist_points": 2.5}),
    ],
    ids=["short", "on hold", "still on hold", "old account", "unmatched", "counterparty", "scarce"],
)
def test_what_makes_settlement_harder_raises_the_probability(model, unseen, better, worse):
    """Direction: all else equal, on average and for nearly every decision."""
    low, high = (model.scorer.score(unseen.assign(**case)) for case in (better, worse))
    assert high.mean() > 1.2 * low.mean()
    assert (high >= low).mean() > 0.95


def test_the_plain_cases_are_told_apart(model, unseen):
    """Minimum functionality: nothing wrong is no cause for concern, everything wrong is."""
    fine = {
        "matching_status": "MACH", "unmatched_on_isd": 0, "differs_from_ssi": 0, "instructed_late": 0,
        "on_hold_at": "NONE", "lacks_inventory": 0, "lacks_inventory_on_isd": 0, "log_borrowing_fee": 2.0,
        "checklist_points": 0.1, "counterparty_relative_rate": -0.5,
        "asset_class": "sovereign_bond", "slot": "isd_morning",
    }  # fmt: skip
    bad = fine | {
        "matching_status": "NMAT", "unmatched_on_isd": 1, "differs_from_ssi": 1, "lacks_inventory": 1,
        "lacks_inventory_on_isd": 1, "log_borrowing_fee": 5.0, "checklist_points": 8.5,
        "counterparty_relative_rate": 0.8, "asset_class": "etf",
    }  # fmt: skip
    median = unseen.median(numeric_only=True).to_frame().T.assign(prior_log_odds=[-3.0])
    calm, trouble = (float(model.scorer.score(median.assign(**case))[0]) for case in (fine, bad))
    assert calm < 0.03
    assert trouble > 0.4


def test_another_seed_gives_about_the_same_model(training_set, models):
    """Stability: a probability that hangs on the seed is none to act on."""
    test = part_of(training_set, "test")
    labels = test["label"].to_numpy().astype(np.float64)
    for candidate in LEARNERS:
        first = models[candidate.name].probabilities
        other = fit_candidate(replace(USECASE, seed=1), candidate, training_set, threads=1).probabilities
        assert np.abs(first - other).mean() < 0.01
        assert pd.Series(first).corr(pd.Series(other), method="spearman") > 0.95
        assert average_precision(labels, other) == pytest.approx(average_precision(labels, first), abs=0.02)
