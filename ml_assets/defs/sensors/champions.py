"""The sensor on the promotion ledger: who scores may change outside a run, and the assets show it."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg
import msgspec

from ml_assets.answers import SERVED_SCORES
from ml_assets.defs.common import champion_metadata, key
from ml_assets.defs.jobs import job_name, stages_job
from ml_assets.defs.resources import Platform
from ml_assets.defs.sensors.cursor import remember, remembered
from ml_assets.lake import landing_table
from ml_assets.spec import UseCase

if TYPE_CHECKING:
    from ml_assets.database.promotions import StageLines

# What the scoring service says lands all the time: it is counted again after so many seconds, sooner beside a canary.
_COUNT_AFTER, _COUNT_CANARY_AFTER = 3600.0, 900.0


class Stages(msgspec.Struct, frozen=True):
    """What `served_stages` was asked for last: lines of champion and canary, version of what had landed, and when."""

    champion: int | None = None
    canary: int | None = None
    served: int | None = None
    at: float = 0.0


class Cursor(msgspec.Struct, frozen=True):
    """What the last tick saw: by use case, the id of the ledger's line that made its champion, and the stages."""

    lines: dict[str, int] = {}
    stages: dict[str, Stages] = {}


def champions_sensor(usecases: Sequence[UseCase]) -> dg.SensorDefinition:
    """Return the sensor that shows promotions and rollbacks by people as materializations; what a run does, it shows.

    It asks for `served_stages` when the ledger has changed, and now and then while scores of the service land.
    """

    @dg.sensor(
        name="champions",
        jobs=[stages_job(usecase) for usecase in usecases],
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Shows a champion that a person has approved, promoted or rolled back to on the asset `champion`, and asks "
            "for `served_stages` when a canary or champion has changed or the scoring service has said more."
        ),
    )
    def champions(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SensorResult | dg.SkipReason:
        from ml_assets.database.promotions import stage_lines

        before = remembered(context, Cursor)
        served, now = platform.lake.version(landing_table(SERVED_SCORES.topic)), time.time()
        lines = {usecase.name: stage_lines(platform.engine, usecase.name) for usecase in usecases}
        made = {name: line for name, of in lines.items() if (line := of.champion) is not None}
        stages = {
            name: Stages(made[name].id, of.canary.id if of.canary else None, served, now)
            for name, of in lines.items()
            if name in made and is_due(before.stages.get(name, Stages()), of, served, now)
        }
        remember(context, Cursor({name: line.id for name, line in made.items()}, before.stages | stages))
        by_people = [
            dg.AssetMaterialization(
                key(usecase, "champion"),
                metadata={
                    **champion_metadata(platform, usecase),
                    "outcome": f"{line.action.replace('_', ' ')} by {line.actor}: {line.reason}",
                },
            )
            for usecase in usecases
            if (line := made.get(usecase.name)) and line.is_person and line.id != before.lines.get(usecase.name)
        ]
        asked = [
            dg.RunRequest(
                run_key=f"{usecase.name}:{seen.champion}:{seen.canary}:{seen.served}",
                job_name=job_name(usecase, "stages"),
                tags={"use_case": usecase.name},
            )
            for usecase in usecases
            if (seen := stages.get(usecase.name))
        ]
        if not by_people and not asked:
            return dg.SkipReason("no person has changed a champion, and nobody stands beside one that has changed")
        return dg.SensorResult(run_requests=asked, asset_events=by_people)

    return champions


def is_due(before: Stages, lines: "StageLines", served: int | None, now: float) -> bool:
    """Return whether `served_stages` has something new to show. Without the service, only a canary is worth a run."""
    canary = lines.canary.id if lines.canary else None
    if served is None and canary is None:
        return False
    if (before.champion, before.canary) != (lines.champion.id if lines.champion else None, canary):
        return True
    return served != before.served and now - before.at >= (_COUNT_CANARY_AFTER if lines.running else _COUNT_AFTER)
