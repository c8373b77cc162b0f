"""Links to both UIs: whole addresses from settings, none where nobody has said where a UI is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from ml_assets.defs.common import rounded
from ml_assets.governance.conditions import condition_rows, sentence
from ml_assets.learning.gate import require
from ml_assets.links import Links
from ml_assets.settings import Settings


def test_a_laptop_has_links_and_a_cluster_those_that_are_set():
    """Guards: a link to localhost, or to a name that only pods know, on the page of a bank."""
    assert Settings().links == Links("http://localhost:5000", "http://localhost:3000")
    cluster = {"postgres_url": SecretStr("postgresql://db"), "mlflow_uri": "http://ml-assets-mlflow:5000"}
    assert Settings(**cluster).links == Links()
    told = Settings(**cluster, mlflow_ui="https://mlflow.bank/", dagster_ui="https://dagster.bank")
    assert told.links.mlflow_run("3", "abc") == "https://mlflow.bank/#/experiments/3/runs/abc"
    assert told.links.asset(["cns_fails", "champion"]) == "https://dagster.bank/assets/cns_fails/champion"
    assert Links().mlflow_run("3", "abc") == Links().dagster_run("abc") == Links().asset(["a"], "2026-01-05") == ""


@pytest.mark.parametrize(
    ("exact", "shown"),
    [(0.000009578549338853785, 0.00001), (0.123456, 0.1235), (12.3456, 12.35), (123456.789, 123456.79), (0.0, 0.0)],
)
def test_numbers_are_for_people(exact: float, shown: float):
    """Guards issue 12 C18: an evaluation showed 0.000009578549338853785."""
    assert rounded(exact) == shown


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_rounding_moves_no_number_far_and_leaves_few_decimals(value: float):
    assert rounded(value) == pytest.approx(value, rel=1e-3, abs=1e-5)
    assert rounded(value) == round(rounded(value), 5)


def test_a_condition_reads_as_words():
    broken = require("lift", 0.0123456, ">=", 0.05, "PR-AUC above the base rate")
    fine = require("score_psi", 0.1, "<=", 0.25, "spread")
    rows = condition_rows([fine, broken])
    assert [row["condition"] for row in rows] == ["lift", "score_psi"]
    assert (rows[0]["asked"], rows[0]["holds"]) == ("at least 0.05", False)
    assert sentence(broken) == "lift is 0.01235, asked is at least 0.05: PR-AUC above the base rate"
    assert condition_rows([require("lift", None, ">=", 0.05, "")])[0]["measured"] == "unknown"
