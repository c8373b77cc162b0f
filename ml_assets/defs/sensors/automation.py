"""The sensor that evaluates the assets' automation conditions."""

import dagster as dg


def automation_sensor() -> dg.AutomationConditionSensorDefinition:
    """Return the sensor that scores when features are ready: Dagster's own default one would start stopped."""
    return dg.AutomationConditionSensorDefinition(
        "score_when_ready",
        target=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description="Scores a date when its features have been made and there is a champion.",
    )
