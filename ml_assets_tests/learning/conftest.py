"""A small use case whose outcomes are drawn from known probabilities, and its training set."""

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.calendars import BusinessCalendar
from ml_assets.contracts import TIMESTAMP
from ml_assets.features import LABELS_SCHEMA, features_schema
from ml_assets.learning import candidates
from ml_assets.learning.training_set import build_training_set
from ml_assets.spec import Cause, Feature, LabelSpec, Slot, SplitSpec, UseCase

FEATURES = (
    Feature("scarcity", "rank of the security's scarcity"),
    Feature("market_value", "value of the instruction", unit="EUR"),
    Feature("days_open", "whole days since the trade"),
    Feature("fail_rate_20d", "counterparty's fail rate, unknown for new ones"),
    Feature("empty", "not delivered yet"),
    Feature("asset_class", "", kind="categorical"),
    Feature("settlement_place", "PSET", kind="categorical"),
)
CAUSE_OF = {"scarcity": "LACK", "fail_rate_20d": "CLAC", "market_value": "MONY", "days_open": "CLAC"}
DAYS, PER_DAY, FIRST_DAY = 30, 250, date(2024, 1, 1)


@pytest.fixture(scope="session")
def usecase(tmp_path_factory: pytest.TempPathFactory) -> UseCase:
    return small_usecase(tmp_path_factory.mktemp("usecase"))


def small_usecase(folder: Path) -> UseCase:
    """Return the use case, whose feature SQL is written to the folder."""
    (folder / "features").mkdir(exist_ok=True)
    (folder / "features" / "decisions.sql").write_text("SELECT 1", encoding="utf-8")
    return UseCase(
        name="small_fails",
        title="Small",
        description="Outcomes of known probability",
        entity="instruction",
        owner="team",
        tier="low",
        folder=folder,
        calendar=BusinessCalendar("ECB"),
        first_partition=FIRST_DAY,
        events=(),
        slots=(Slot("morning", time(7)), Slot("evening", time(19))),
        features=FEATURES,
        label=LabelSpec("fails", "not settled", lambda day: datetime.combine(day, time(20), tzinfo=UTC)),
        split=SplitSpec(train_days=16, calibration_days=5, test_days=6),
        candidates=(
            candidates.rule("fail_rate_20d", description="worst counterparties first"),
            candidates.logistic(),
            candidates.lightgbm(n_estimators=40, num_leaves=15),
            candidates.hist_gradient_boosting(max_iter=30),
        ),
        capacity=20,
    )


def explained(usecase: UseCase) -> UseCase:
    """Return the use case with causes, which its features name."""
    causes = (Cause("LACK", "lack", "borrow"), Cause("CLAC", "counterparty", "chase"), Cause("MONY", "cash", "fund"))
    features = tuple(replace(f, cause=CAUSE_OF.get(f.name, "")) for f in usecase.features)
    return replace(usecase, features=features, causes=causes)


def draw(seed: int = 7) -> tuple[pa.Table, pa.Table, np.ndarray]:
    """Return features, labels and the true probabilities, sorted by decision time and entity."""
    rng = np.random.default_rng(seed)
    n = DAYS * PER_DAY
    day = np.repeat(np.arange(DAYS), PER_DAY)
    evening = np.tile(np.arange(PER_DAY) >= PER_DAY // 2, DAYS)
    dates = [FIRST_DAY + timedelta(days=int(d)) for d in day]
    times = [datetime.combine(d, time(19 if late else 7), tzinfo=UTC) for d, late in zip(dates, evening, strict=True)]
    rate = np.where(rng.random(n) < 0.2, np.nan, rng.beta(1, 8, n))
    value = np.exp(rng.normal(13, 3, n))
    columns = {
        "entity_id": [f"I{i:06d}" for i in range(n)],
        "decision_time": pa.array(times, TIMESTAMP),
        "decision_date": dates,
        "slot": np.where(evening, "evening", "morning"),
        "outcome_date": [d + timedelta(days=1) for d in dates],
        "cost_if_fail": value * 1e-4,
        "attributes": pa.nulls(n, pa.string()),
        "scarcity": rng.normal(size=n),
        "market_value": value,
        "days_open": rng.integers(0, 6, n).astype(float),
        "fail_rate_20d": pa.array(rate, from_pandas=True),
        "empty": pa.nulls(n, pa.float64()),
        "asset_class": rng.choice(np.array(["BOND", "EQUITY", "ETF", None], dtype=object), n),
        "settlement_place": rng.choice(["EUROCLEAR", "CLEARSTREAM", "T2S"], n),
    }
    logit = -3.2 + 0.9 * columns["scarcity"] + 7 * np.nan_to_num(rate, nan=0.1) + 0.3 * columns["days_open"]
    logit = logit + 0.8 * (columns["asset_class"] == "ETF")
    truth = 1 / (1 + np.exp(-logit))
    schema = features_schema(FEATURES)
    features = pa.table({name: columns[name] for name in schema.names}, schema=schema)
    known_at = [datetime.combine(d + timedelta(days=1), time(20), tzinfo=UTC) for d in dates]
    labels = pa.table(
        {
            "entity_id": columns["entity_id"],
            "decision_time": columns["decision_time"],
            "outcome_date": columns["outcome_date"],
            "label": (rng.random(n) < truth).astype(np.int8),
            "label_known_at": pa.array(known_at, TIMESTAMP),
        },
        schema=LABELS_SCHEMA,
    )
    return features, labels, truth


@pytest.fixture(scope="session")
def training_set(usecase: UseCase) -> pa.Table:
    return small_training_set(usecase)


def small_training_set(usecase: UseCase) -> pa.Table:
    """Return the training set of `draw`."""
    features, labels, _ = draw()
    return build_training_set(features, labels, usecase.split, datetime(2024, 2, 15, tzinfo=UTC))
