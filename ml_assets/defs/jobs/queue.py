"""The run queue: runs that may not start yet wait in it, whoever requested them.

| run with assets of a pool | its tag `ml_assets/<pool>` | how many at a time |
| --- | --- | --- |
| part of a backfill of assets that are made side by side | `backfill` | `backfill_runs`, after all others that wait |
| any other | `in turn` | one, in the order of the requests |

A run in turn may look back on what the one before it has made. A backfill keeps its own order, by what its assets
depend on. One run may go beside the others: what is made of older data never replaces what was made of newer
(`since` of `Lake.replace`).
"""

from collections.abc import Iterable, Mapping
from typing import Any, Self, cast

from dagster import DagsterRun, Field, IntSource, QueuedRunCoordinator
from dagster._config.config_schema import UserConfigSchema
from dagster._core.definitions.assets.job.asset_job import is_reserved_asset_job_name
from dagster._core.run_coordinator import SubmitRunContext
from dagster._core.run_coordinator.queued_run_coordinator import RunQueueConfig
from dagster._core.storage.tags import BACKFILL_ID_TAG, PRIORITY_TAG
from dagster._serdes import ConfigurableClassData

from ml_assets.defs.common import side_by_side

IN_TURN, BACKFILL = "in turn", "backfill"


class RunQueue(QueuedRunCoordinator):
    """Dagster's queue, in which runs that write one lake take turns and those of a backfill go side by side.

    The limits are by tags that the queue itself gives: a run of selected assets has no job's tags. Pools say what a run
    writes; their own limit is above all this, and a limit that a person has set for one stays.
    """

    def __init__(self, backfill_runs: int = 1, **options: Any) -> None:
        super().__init__(**options)
        self._backfill_runs = backfill_runs

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """As Dagster's queue, and how many runs of backfills may write one lake at a time."""
        queue = cast("Mapping[str, Any]", super().config_type())
        return {**queue, "backfill_runs": Field(IntSource, is_required=False, default_value=1)}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        """Return the queue of a configuration."""
        return cls(inst_data=inst_data, **config_value)

    def get_run_queue_config(self) -> RunQueueConfig:
        """Return Dagster's limits, and two for each pool."""
        config = super().get_run_queue_config()
        limits = [
            {"key": tag_of(pool.name), "value": kind, "limit": limit}
            for pool in self._instance.event_log_storage.get_pool_limits()
            for kind, limit in ((IN_TURN, 1), (BACKFILL, self._backfill_runs))
        ]
        return config._replace(tag_concurrency_limits=[*config.tag_concurrency_limits, *limits])

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Queue the run."""
        run = context.dagster_run
        pools = sorted((run.run_op_concurrency.all_pools if run.run_op_concurrency else None) or ())
        if pools:
            self._make(pools)
            kind = BACKFILL if _goes_beside_others(run) else IN_TURN
            after_others = {PRIORITY_TAG: "-1"} if kind == BACKFILL else {}
            self._instance.add_run_tags(run.run_id, {**after_others, **{tag_of(name): kind for name in pools}})
        return super().submit_run(context)

    def _make(self, pools: Iterable[str]) -> None:
        """Give pools the default limit, as the daemon does once it has met them; what a person has set stays."""
        storage = self._instance.event_log_storage
        known = {pool.name: pool for pool in storage.get_pool_limits()}
        default = self._instance.global_op_concurrency_default_limit
        for name in pools:
            pool = known.get(name)
            if pool is not None and pool.from_default and pool.limit != default:  # that of an earlier version
                storage.delete_concurrency_limit(name)
                pool = None
            if pool is None:
                storage.initialize_concurrency_limit_to_default(name)


def _goes_beside_others(run: DagsterRun) -> bool:
    """Return whether a run is part of a backfill whose order Dagster keeps, of assets that allow it.

    A backfill of a job makes all its assets of some dates in one run, and knows no order between those runs.
    """
    backfill = BACKFILL_ID_TAG in run.tags and is_reserved_asset_job_name(run.job_name)
    return backfill and bool(run.asset_selection) and all(map(side_by_side, run.asset_selection or ()))


def tag_of(pool: str) -> str:
    """Return the tag of a run that says how it waits for others of a pool."""
    return f"ml_assets/{pool}"
