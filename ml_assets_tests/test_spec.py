"""A use case that cannot work is refused when it is declared, in words that say what to change."""

import dataclasses
from datetime import date

import pytest

from ml_assets.spec import DailySpec, MonitoringSpec, SinceChangeSpec
from ml_assets.usecases.settlement_fails.usecase import USE_CASE


@pytest.mark.parametrize("name", ["decisions", "business_days", "Decisions"])
def test_no_table_can_have_the_name_of_one_that_the_sql_has_already(name):
    """Guards a daily table `decisions`, which hid the decisions from the feature SQL and failed inside DuckDB."""
    expected = f"settlement_fails: no event, reference or daily table can be called {name}"
    with pytest.raises(ValueError, match=expected):
        dataclasses.replace(USE_CASE, daily=(DailySpec(name, "Taken."),))
    with pytest.raises(ValueError, match=expected):
        dataclasses.replace(USE_CASE, events=(dataclasses.replace(USE_CASE.events[0], name=name),))
    with pytest.raises(ValueError, match=expected):
        dataclasses.replace(USE_CASE, references=(dataclasses.replace(USE_CASE.references[0], name=name),))


def test_what_learns_from_a_change_has_the_days_since_then_to_train_and_as_many_as_ever_to_calibrate_and_test():
    monday, change = date(2026, 3, 30), date(2026, 3, 16)
    learning = USE_CASE.learning_since(change, monday)
    split, days = learning.split, len(list(USE_CASE.decision_dates(change, monday)))
    assert split.train_days + split.calibration_days + split.test_days == days
    assert (split.folds, split.refit, split.embargo) == (0, True, USE_CASE.split.embargo)
    assert USE_CASE.learning_since(date(2020, 1, 2), monday).split.train_days == USE_CASE.split.train_days, "no more"
    silent = dataclasses.replace(USE_CASE, monitoring=MonitoringSpec())
    with pytest.raises(ValueError, match="does not say how it learns from the dates since a change"):
        silent.learning_since(change, monday)
    with pytest.raises(ValueError, match="SinceChangeSpec: test_days is 0; the least is 1"):
        SinceChangeSpec(test_days=0)
