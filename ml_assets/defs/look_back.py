"""How far an asset looks back, as partition mappings: a backfill waits by them and makes what it was asked for.

With Dagster's own mappings a backfill also takes in each later date that could see one of those asked for: of a month,
the months after it, and of labels all there are. Which of them change is known to the sensor alone. Here a date brings
along itself and no other; it still waits for all that it looks back on.

Web server and daemon read these mappings too. They know the classes since dagster.yaml names this module as that of the
scheduler, which is Dagster's own: an instance loads it before any asset graph.
"""

from typing import Any

import dagster as dg
from dagster._core.definitions.partitions.subset.partitions_subset import PartitionsSubset
from dagster._core.scheduler import DagsterDaemonScheduler
from dagster._serdes import whitelist_for_serdes

__all__ = ["DagsterDaemonScheduler", "WholeMapping", "WindowMapping"]


class _BringsAlongItself(dg.PartitionMapping):
    def get_downstream_partitions_for_partitions(
        self,
        upstream_partitions_subset: PartitionsSubset,
        *_: Any,
        **__: Any,
    ) -> PartitionsSubset:
        """Return the same dates: both assets have the same partitions."""
        return upstream_partitions_subset


@whitelist_for_serdes
class WindowMapping(_BringsAlongItself, dg.TimeWindowPartitionMapping):
    """A date looks back on a window of dates."""


@whitelist_for_serdes
class WholeMapping(_BringsAlongItself, dg.AllPartitionMapping):
    """A date looks back on all dates."""
