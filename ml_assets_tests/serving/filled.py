"""What the service needs to answer: a lake with a market, two models with golden samples, a ledger that names them."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, time
from pathlib import Path

import pyarrow as pa

from ml_assets.database.migrate import migrate
from ml_assets.database.promotions import Actor, ModelIdentity, declare_tiers, record, writing
from ml_assets.lake import Lake, curated_table, reference_table
from ml_assets.learning import candidates
from ml_assets.learning.fit import fit_candidate
from ml_assets.learning.golden import golden_sample
from ml_assets.learning.training_set import part_of
from ml_assets.local.simulation.market import Market, MarketConfig
from ml_assets.registry.integrity import file_hashes, model_hash
from ml_assets.serving.models import ModelFiles
from ml_assets.spec import CanarySpec, SplitSpec, UseCase
from ml_assets_tests.usecases.settlement import USE_CASE, training_set_of

MARKET = MarketConfig(days=10, instructions_per_day=80, counterparties=3, securities=8, dirty=0)
NAME = USE_CASE.name
RUN = Actor.run("4711")
SMALL: UseCase = replace(
    USE_CASE,
    tier="low",
    split=SplitSpec(train_days=4, calibration_days=2, test_days=2),
    # Of two like models one is at times slower by that much on a machine that does other things.
    gate=replace(USE_CASE.gate, canary=CanarySpec(min_scores=20, max_latency_ratio=50.0)),
)


def fill(
    home: Path,
    market: Market,
    events: Mapping[str, pa.Table],
    references: Mapping[str, pa.Table],
    lake: Lake | None = None,
) -> Lake:
    """Fill a lake, by default below a folder, with a market, and save two models fitted on it; return the lake."""
    lake = lake or Lake(str(home / "lake"))
    for event in SMALL.events:
        rows = events[event.name]
        lake.replace(curated_table(SMALL, event), rows, "business_date", rows["business_date"].unique().to_pylist())
    for reference in SMALL.references:
        lake.overwrite(reference_table(SMALL, reference), references[reference.name])
    rows = training_set_of(SMALL, market, events, references)
    for version, candidate in enumerate((candidates.logistic(), SMALL.rule), start=1):
        fitted = fit_candidate(SMALL, candidate, rows)
        fitted.scorer.save(home / "models" / f"run{version}")
        (home / f"run{version}.json").write_text(golden_sample(fitted, part_of(rows, "test")), encoding="utf-8")
    return lake


def files_of(home: Path, run: str) -> ModelFiles:
    """Return where `fill` has put a model."""
    return ModelFiles(home / "models" / run, home / f"{run}.json")


def last_afternoon(market: Market) -> datetime:
    """Return 15:00 UTC of the market's last day, a time at which decisions are open."""
    return datetime.combine(market.world.calendar[MARKET.days - 1], time(15), tzinfo=UTC)


def open_ledger(url: str) -> None:
    """Make the ledger in an empty database."""
    migrate(url)
    declare_tiers(url, {NAME: "low"})


def identity_of(home: Path, version: int, approved: str = "") -> ModelIdentity:
    """Return what the ledger says of a model: the hash of its files, or another one."""
    folder = home / "models" / f"run{version}"
    return ModelIdentity(version, folder.name, approved or model_hash(file_hashes(folder)), "e" * 64)


def promote(
    url: str, home: Path, version: int, action: str = "promoted", approved: str = "", share: float | None = None,
    by: Actor = RUN,
) -> None:  # fmt: skip
    """Write a line into the ledger, with the hash of the model's files or another one."""
    identity = identity_of(home, version, approved)
    with writing(url, NAME) as ledger:
        record(ledger, NAME, action, model=identity, actor=by, reason="test", share=share)  # type: ignore[arg-type]
