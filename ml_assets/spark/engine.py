"""The engine of a backfill that makes the rows of dates on the executors of a Spark cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa

from ml_assets.features import features_schema
from ml_assets.lake import Batches, Lake
from ml_assets.lifecycle.backfill import FailedDate, MadeRows
from ml_assets.lifecycle.features import Due
from ml_assets.spark.executor import SCHEMA, Said, Slices, rows_of, software
from ml_assets.spark.session import in_short
from ml_assets.spec import UseCase

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


class SparkEngine:
    """Makes the rows of neighbouring dates on executors, a slice of dates per task.

    The rows wait on the executors' disks and come here a slice at a time while they are written, so this process holds
    one slice. There are as many slices as tasks can run at once; each opens the history that its first date looks back
    on.
    """

    def __init__(self, spark: SparkSession) -> None:
        self._spark = spark

    @contextmanager
    def make(self, lake: Lake, usecase: UseCase, due: Due) -> Iterator[MadeRows]:
        """Make the rows of all dates that are due.

        What an executor's error says is said of its date. Where a task is lost again and again, as one that needs more
        memory than there is, each date is made in a job of its own: so the one that cannot be made is found.
        """
        frames: list[DataFrame] = []
        try:
            said = self._run(lake, usecase, due, frames)

            def rows() -> Iterator[pa.Table]:
                for frame in frames:
                    for row in frame.select("rows").where("length(rows) > 0").toLocalIterator():
                        yield rows_of(usecase, row.rows)

            found = {one.day: one for each in said if (one := each.made or each.failed) is not None}
            yield MadeRows([found[day] for day in due.times], Batches(features_schema(usecase.features), rows))
        finally:
            for frame in frames:
                frame.unpersist()

    def _run(self, lake: Lake, usecase: UseCase, due: Due, frames: list[DataFrame]) -> list[Said]:
        """Return what executors say of dates; their rows are in what is added to `frames`."""
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException
        from pyspark.storagelevel import StorageLevel

        frame = self._frame(lake, usecase, due).persist(StorageLevel.DISK_ONLY)
        try:
            said = [msgspec.json.decode(row.said, type=Said) for row in frame.select("said").collect()]
        except (PySparkException, Py4JError) as error:
            with suppress(Py4JError):  # it fails once more where Spark itself is gone
                frame.unpersist()
            if len(due.times) == 1:
                why = f"Spark gave up on it: {in_short(error)}"
                return [Said(failed=FailedDate(day, why)) for day in due.times]
            return [each for day in due.times for each in self._run(lake, usecase, due.of([day]), frames)]
        frames.append(frame)
        return said

    def _frame(self, lake: Lake, usecase: UseCase, due: Due) -> DataFrame:
        context, days = self._spark.sparkContext, list(due.times)
        size = -(-len(days) // context.defaultParallelism)
        slices = [due.of(days[start : start + size]) for start in range(0, len(days), size)]
        # Read here: the executors have no need of the folder.
        _ = usecase.feature_sql, usecase.daily_sql, usecase.label_sql
        threads = int(context.getConf().get("spark.task.cpus", "1"))
        cores = int(context.getConf().get("spark.executor.cores", "1"))
        task = Slices(lake.root, lake.options, usecase, slices, software(), max(1, cores // threads), threads)
        # A partition per slice.
        return self._spark.range(0, len(slices), 1, len(slices)).mapInArrow(task, SCHEMA)
