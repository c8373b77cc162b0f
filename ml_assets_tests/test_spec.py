"""A use case that cannot work is refused when it is declared, in words that say what to change."""

import dataclasses

import pytest

from ml_assets.spec import DailySpec
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
