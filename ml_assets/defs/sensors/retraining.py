"""The sensor that starts a retraining out of turn when the newest decision asks for one."""

import dagster as dg

from ml_assets.defs.assets.training import since_change
from ml_assets.defs.jobs import job_name
from ml_assets.defs.resources import Platform
from ml_assets.spec import UseCase

OUT_OF_TURN = "retrained_out_of_turn"  # the tag with the date of the decision


def retraining_sensor(usecase: UseCase) -> dg.SensorDefinition:
    """Return the sensor that runs the retraining job for a decision date that asks for it, once."""

    @dg.sensor(
        name=f"{usecase.name}_retraining_out_of_turn",
        job_name=job_name(usecase, "retrain"),
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Retrains {usecase.name} when the asset `retraining_decision` says so. The gate judges as ever.",
    )
    def out_of_turn(platform: Platform) -> dg.RunRequest | dg.SkipReason:
        from ml_assets.database.monitoring import newest_retraining_decision

        newest = newest_retraining_decision(platform.engine, usecase.name)
        if newest is None:
            return dg.SkipReason("nothing has been decided yet")
        day = newest["decision_date"]
        if newest["outcome"] != "retrain":
            return dg.SkipReason(f"{day}: {newest['outcome']}. {newest['reason']}")
        return dg.RunRequest(
            run_key=f"{usecase.name}:{day}",
            partition_key=day.isoformat(),
            run_config=since_change(usecase, newest["numbers"].get("since", "")),
            tags={"use_case": usecase.name, OUT_OF_TURN: day.isoformat()},
        )

    return out_of_turn
