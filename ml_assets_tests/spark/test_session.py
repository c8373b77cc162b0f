"""What is said before there is a session."""

import sys

import pytest

from ml_assets.errors import InputError
from ml_assets.spark.session import conf_of, in_short, open_spark


def test_without_pyspark_the_command_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspark.errors", None)
    with (
        pytest.raises(InputError, match=r"PySpark, which is not installed; pip install 'ml_assets\[spark\]'"),
        open_spark({}),
    ):
        pass


def test_settings_of_spark_are_names_with_values():
    assert conf_of(["spark.master=local[2]", "spark.x=a=b"]) == {"spark.master": "local[2]", "spark.x": "a=b"}
    for wrong in ("spark.master", "master=yarn"):
        with pytest.raises(InputError, match=f"--spark '{wrong}' is no setting of Spark's"):
            conf_of([wrong])


def test_an_error_is_told_without_the_calls_that_led_to_it():
    said = "An error occurred.\n: SparkException: Job aborted: crashed\n\tat org.apache.X(Y.scala:1)\n\t... 3 more\n"
    assert in_short(RuntimeError(said)) == "An error occurred. : SparkException: Job aborted: crashed"
    assert in_short(RuntimeError("")) == "RuntimeError"
