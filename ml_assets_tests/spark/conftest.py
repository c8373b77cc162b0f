"""One Spark session for all tests here: two executors, each a process of its own as on a cluster, and the connector."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ml_assets.spark.session import open_spark
from ml_assets_tests.defs.assets.conftest import bank, make_bank
from ml_assets_tests.spark.connector import jars

__all__ = ["bank", "make_bank"]


@pytest.fixture(scope="session")
def spark_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what Spark writes down of its jobs: plans, settings, tasks, errors."""
    return tmp_path_factory.mktemp("spark_log")


@pytest.fixture(scope="session")
def spark(spark_log: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A session on two executors."""
    conf = {
        "spark.master": "local-cluster[2,1,1024]",
        "spark.executor.memory": "512m",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.local.dir": str(tmp_path_factory.mktemp("spark_local")),
        "spark.sql.warehouse.dir": str(tmp_path_factory.mktemp("warehouse")),
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": spark_log.as_uri(),
        "spark.eventLog.compress": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "2",
        "spark.databricks.delta.snapshotPartitions": "1",
        # The connector, as its documentation has it.
        "spark.jars": ",".join(str(jar) for jar in jars()),
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    }
    with open_spark(conf) as session:
        folder = executor_logs(session)
        yield session
    shutil.rmtree(folder, ignore_errors=True)


def executor_logs(session: Any) -> Path:
    """The folder in which this session's executors write, below Spark's own: a local cluster takes no other."""
    import pyspark

    return Path(pyspark.__file__).parent / "work" / session.sparkContext.applicationId
