"""The list of all tables: housekeeping works through it, so a table that is missing there grows for ever."""

import inspect
from collections.abc import Iterator

import pytest

from ml_assets.lake import names, tables_of
from ml_assets.settings import Settings
from ml_assets.spec import UseCase
from ml_assets.usecases import discover

USE_CASES = discover(Settings().usecase_packages)
KINDS = [of for name, of in inspect.getmembers(names, inspect.isfunction) if name.endswith("_table")]


def named(kind, usecase: UseCase) -> Iterator[str]:
    """Every table that a naming function of `lake.names` gives for a use case."""
    wanted = list(inspect.signature(kind).parameters)
    if wanted == ["usecase"]:
        yield kind(usecase)
    elif wanted == ["topic"]:
        yield from (kind(event.topic) for event in usecase.events)
    elif wanted == ["usecase", "event"]:
        yield from (kind(usecase, event) for event in usecase.events)
    elif wanted == ["usecase", "reference"]:
        yield from (kind(usecase, reference) for reference in usecase.references)
    else:
        assert wanted == ["usecase", "name"], f"say here what tables {kind.__name__} names"
        yield from (kind(usecase, daily.name) for daily in usecase.daily)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_table_is_in_the_list(kind):
    """Guards: daily parts, reference tables and their quarantine were in no list, so nothing ever compacted them."""
    every = {table for usecase in USE_CASES for table in named(kind, usecase)}
    assert every, f"no use case has a table of {kind.__name__}"
    assert every <= set(tables_of(USE_CASES))


def test_a_table_of_several_use_cases_is_listed_once():
    listed = tables_of([*USE_CASES, *USE_CASES])
    assert len(listed) == len(set(listed))
