"""The sensor on the promotion ledger: who scores may change outside a run, and the asset `champion` shows it."""

from collections.abc import Sequence

import dagster as dg
import msgspec

from ml_assets.defs.common import champion_metadata, key
from ml_assets.defs.resources import Platform
from ml_assets.defs.sensors.cursor import remember, remembered
from ml_assets.spec import UseCase


class Cursor(msgspec.Struct, frozen=True):
    """What the last tick saw: by use case, the id of the ledger's line that made its champion."""

    lines: dict[str, int] = {}


def champions_sensor(usecases: Sequence[UseCase]) -> dg.SensorDefinition:
    """Return the sensor that shows promotions and rollbacks by people as materializations; it asks for no run.

    What a run promotes, the run shows itself.
    """

    @dg.sensor(
        name="champions",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Shows a champion that a person has approved, promoted or rolled back to on the asset `champion`.",
    )
    def champions(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SensorResult | dg.SkipReason:
        from ml_assets.database.promotions import last_change

        before = remembered(context, Cursor)
        lines = {usecase.name: last_change(platform.engine, usecase.name) for usecase in usecases}
        made = {name: line for name, line in lines.items() if line is not None}
        remember(context, Cursor({name: line.id for name, line in made.items()}))
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
        return (
            dg.SensorResult(asset_events=by_people) if by_people else dg.SkipReason("no person has changed a champion")
        )

    return champions
