"""What there is of a use case, in one look: for `ml-assets status`, and for programs that ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Engine

from ml_assets.database.monitoring import newest_shadow_verdict
from ml_assets.database.promotions import LedgerEntry, last_change, newest_of_canaries, open_request
from ml_assets.database.status import ScoredDate, scored_dates
from ml_assets.lake import Lake, features_table
from ml_assets.landing.anew import known_too_late
from ml_assets.landing.extent import least
from ml_assets.lifecycle.waiting import all_progress, what_lacks, what_waits
from ml_assets.registry import CHALLENGER, ModelRegistry
from ml_assets.spec import UseCase


@dataclass(frozen=True, slots=True)
class Overview:
    """What has landed of a use case, what was made of it, and which models there are.

    `champion` is the ledger's line that made it, `request` the one that awaits approval, `canary` the newest about a
    canary, which runs or has ended. `verdict` is a sentence on what the shadow has shown of the version that awaits
    approval. `waits` says in sentences what is held up, `late` what was known too late.
    """

    landed_until: datetime | None
    newest_features: date | None
    newest_scores: ScoredDate | None
    champion: LedgerEntry | None
    challenger: int | None
    request: LedgerEntry | None
    verdict: str | None
    canary: LedgerEntry | None
    waits: Sequence[str]
    late: str | None


def overview(lake: Lake, registry: ModelRegistry, engine: Engine, usecase: UseCase) -> Overview:
    """Return what there is of a use case; nothing is written, and no model is opened."""
    slowest = least(all_progress(lake, [usecase]).values())
    made = [file.partition for file in lake.files(features_table(usecase), "decision_date") if file.rows]
    challenger = registry.resolve(usecase.name, CHALLENGER)
    champion = last_change(engine, usecase.name)
    # The alias stays where it was when its version is promoted.
    promoted = champion is not None and challenger is not None and champion.to_version == challenger.version
    scored = scored_dates(engine, usecase.name, limit=1)
    request = open_request(engine, usecase.name)
    verdict = newest_shadow_verdict(engine, usecase.name, request.mlflow_run_id) if request else None
    return Overview(
        landed_until=slowest.until if slowest else None,
        newest_features=max(made, default=None),
        newest_scores=scored[0] if scored else None,
        champion=champion,
        challenger=challenger.version if challenger and not promoted else None,
        request=request,
        verdict=f"as of {verdict['decision_date']}, {verdict['sentence']}" if verdict else None,
        canary=newest_of_canaries(engine, usecase.name),
        waits=[*what_waits(lake, usecase), *what_lacks(lake, usecase)],
        late=known_too_late(lake, usecase),
    )
