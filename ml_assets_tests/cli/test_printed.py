"""The work-list as it is printed: what is worth acting on, in the use case's own words."""

import dataclasses
import io
import json
from datetime import date
from types import SimpleNamespace

import pytest
from rich.console import Console
from sqlalchemy import create_engine

from ml_assets.cli.printed import print_work_list
from ml_assets.database.predictions import upsert_predictions
from ml_assets.spec import ActionSpec, Cause, UseCase
from ml_assets_tests import late_payments
from ml_assets_tests.database.factories import OUTCOME_DATE, prediction, predictions


@pytest.fixture(scope="module")
def usecase(tmp_path_factory: pytest.TempPathFactory) -> UseCase:
    made = late_payments.usecase_of(late_payments.make_package(tmp_path_factory.mktemp("printed"), "fails"))
    label = dataclasses.replace(made.label, probability_of="late")
    return dataclasses.replace(made, label=label, action=ActionSpec(cost=50.0, effectiveness=0.5))


def printed(url: str, usecase: UseCase, day: date | None = None) -> str:
    out = io.StringIO()
    engine = create_engine(url)
    try:
        print_work_list(SimpleNamespace(engine=engine), usecase, Console(file=out, width=200), 10, day)  # type: ignore[arg-type]
    finally:
        engine.dispose()
    return " ".join(out.getvalue().split())


def test_what_is_below_the_line_is_counted_and_not_listed(application_url: str, usecase: UseCase) -> None:
    """Guards: a list was printed up to capacity, with rows that cost more to act on than they save."""
    upsert_predictions(application_url, predictions(prediction("ABOVE", 0.2), prediction("BELOW", 0.09)))
    said = printed(application_url, usecase)
    assert "the first 1 by expected cost" in said
    assert "ABOVE" in said
    assert "BELOW" not in said
    assert "1 of the first 2 are below the line: acting costs 50 EUR and saves 50% of the expected cost" in said
    assert "p(late)" in said


def test_a_list_of_nothing_worth_an_action_says_so(application_url: str, usecase: UseCase) -> None:
    """Guards: 'score a date first' would follow a score."""
    upsert_predictions(application_url, predictions(prediction("BELOW", 0.09)))
    said = printed(application_url, usecase, OUTCOME_DATE)
    assert said.startswith(f"Nothing is worth acting on for outcomes of {OUTCOME_DATE}")
    assert "below the line" in said


def test_where_acting_is_free_all_is_listed(application_url: str, usecase: UseCase) -> None:
    upsert_predictions(application_url, predictions(prediction("A", 0.2), prediction("B", 0.0)))
    said = printed(application_url, dataclasses.replace(usecase, action=ActionSpec()))
    assert "the first 2 by expected cost" in said
    assert "below the line" not in said


@pytest.mark.parametrize(("added", "why"), [(0.04, "BLUE +0.04"), (0.7, "BLUE +0.7")])
def test_a_row_that_says_what_to_do_says_why(application_url: str, usecase: UseCase, added: float, why: str) -> None:
    """Guards: the main cause added too little to be shown, and its action stood there alone."""
    codes = {"cause": "BLUE", "action": "ring them up", "contributions": {"RED": -0.2, "BLUE": added, "GREEN": 0.01}}
    upsert_predictions(application_url, predictions(prediction("A", 0.9, reason_codes=json.dumps(codes))))
    causes = tuple(Cause(code, code.title(), "do something") for code in ("RED", "BLUE", "GREEN", "PAYER"))
    said = printed(application_url, dataclasses.replace(usecase, causes=causes))
    assert f"{why} │ ring them up" in said
    assert "GREEN" not in said
    assert "RED" not in said
    assert "isin DE000A1EWWW0" in said, "attributes have names"
