"""Spark's session: opened by the configuration that Spark finds itself, and by what is given beside it."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ml_assets.errors import InputError, StateError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Each is shown in Spark's own pages and logs.
_APP = "ml_assets"


def conf_of(options: Iterable[str]) -> dict[str, str]:
    """Return options of the form `name=value` as Spark's configuration.

    Raises:
        InputError: one has another form, or no name of Spark's.
    """
    found = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or not name.startswith("spark."):
            raise InputError(
                f"--spark {option!r} is no setting of Spark's; give it as name=value, like spark.master=yarn"
            )
        found[name] = value
    return found


@contextmanager
def open_spark(conf: Mapping[str, str], packages: Iterable[str] = ()) -> Iterator[SparkSession]:
    """Run a session for the length of a block.

    `conf` comes before what `spark-defaults.conf` says. Executors run Python as this process does, by the same path,
    unless PYSPARK_PYTHON or `spark.pyspark.python` names another. The top folders of the Python `packages` are sent to
    them, unless they are of this project, which must be installed there.

    Raises:
        InputError: PySpark is not installed.
        StateError: Spark cannot start; with what it said.
    """
    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ModuleNotFoundError:
        raise InputError(
            "--engine spark needs PySpark, which is not installed",
            to_do="pip install 'ml_assets[spark]' here and on the executors, or take --engine local",
        ) from None
    # It gets none from us.
    warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
    os.environ.setdefault("PYSPARK_PYTHON", conf.get("spark.pyspark.python", sys.executable))
    builder = SparkSession.builder.appName(_APP).config(map=dict(conf))
    try:
        spark = builder.getOrCreate()
    except (PySparkException, OSError, RuntimeError) as error:
        raise StateError(f"Spark cannot start: {in_short(error)}; it needs Java 17 or newer, and a master") from error
    try:
        with tempfile.TemporaryDirectory(prefix="ml_assets-") as folder:
            send_packages(spark, packages, Path(folder))
            yield spark
    finally:
        spark.stop()


def send_packages(spark: SparkSession, packages: Iterable[str], folder: Path) -> None:
    """Send the top folders of Python packages to the executors, by archives in a folder that stays; not our own."""
    for top in sorted({package.partition(".")[0] for package in packages} - {"ml_assets"}):
        for where in import_module(top).__path__:
            root = Path(where)
            made = shutil.make_archive(str(folder / top), "zip", root_dir=root.parent, base_dir=root.name)
            spark.sparkContext.addPyFile(made)


def in_short(error: BaseException) -> str:
    """Return what an error of Spark's says without the calls that led to it, in Java and in Python."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(("at ", "File ", "...", "Traceback"))]
    return " ".join(said)[:1000] or type(error).__name__
