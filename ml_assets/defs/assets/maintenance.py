"""Maintenance of the lake as an asset, so that the UI shows when it was done and what it did."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import dagster as dg
from pydantic import Field

from ml_assets.defs.common import retrying_outages_only, table
from ml_assets.defs.resources import Platform
from ml_assets.lifecycle.maintenance import KEEP_HOURS
from ml_assets.spec import UseCase

MAINTENANCE = dg.AssetKey(["lake", "maintenance"])


class MaintenanceConfig(dg.Config):
    """How much of the past stays readable."""

    keep_hours: int = Field(KEEP_HOURS, description="hours for which a version of a table stays readable")


def build(usecases: Sequence[UseCase]) -> Iterator[dg.AssetsDefinition]:
    """Yield the asset that keeps the tables of all use cases in shape."""

    @dg.asset(
        key=MAINTENANCE,
        group_name="maintenance",
        kinds={"deltalake"},
        description=(
            "Small files of every table compacted, files of old versions removed. Versions that a registered model or "
            "a prediction was made from stay. Neither readers nor landers are disturbed."
        ),
    )
    @retrying_outages_only
    def lake_maintenance(config: MaintenanceConfig, platform: Platform) -> dg.MaterializeResult:
        from ml_assets.lifecycle.maintenance import maintain_lake

        reports = maintain_lake(
            platform.lake, platform.registry, platform.engine, usecases, keep_hours=config.keep_hours
        )
        return dg.MaterializeResult(
            metadata={
                "files before": sum(report.files_before for report in reports),
                "files after": sum(report.files_after for report in reports),
                "removed files": sum(report.removed_files for report in reports),
                "tables": table([{**asdict(report), "pinned": len(report.pinned)} for report in reports]),
            }
        )

    yield lake_maintenance
