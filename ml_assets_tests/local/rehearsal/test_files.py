"""A short cut of the SEC's files played: a part of the securities and mornings, a half-month left out, two years."""

import tempfile
from pathlib import Path

import pytest

from ml_assets.local.rehearsal.files import FilesPlan, with_last_half_month_later
from ml_assets.local.rehearsal.files_page import compared, goals_of_gap, goals_of_months, message_after, story
from ml_assets.local.rehearsal.run import played_files
from ml_assets.local.simulation.sec_ftd import replay
from ml_assets.settings import Settings
from ml_assets.spec import SplitSpec
from ml_assets.usecases.cns_fails.usecase import USE_CASE
from ml_assets_tests.local.simulation.test_sec_ftd import data_folder

pytestmark = pytest.mark.rehearsal

PLAN = FilesPlan(
    share=0.1, dense=6, sparse=60, split=SplitSpec(train_days=8, calibration_days=2, test_days=5, refit=True)
)
# Without the second half of September.
MONTHS = ("202006a", "202006b", "202007a", "202007b", "202008a", "202008b", "202009a", "202010a")


def chosen(folder, months):
    """Link the files of some months into a folder."""
    for month in months:
        name = f"cnsfails{month}.txt.xz"
        (folder / name).symlink_to(data_folder() / name)
    return folder


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """The files with their gap, and then two years of nothing.

    The home is not below pytest's own folder, which the user that PostgreSQL runs as cannot enter.
    """
    months = replay(chosen(tmp_path_factory.mktemp("months"), MONTHS))
    files = replay(with_last_half_month_later(months, 2, tmp_path_factory.mktemp("later"), USE_CASE))
    with tempfile.TemporaryDirectory(prefix="ml_assets_") as home:
        return played_files(Settings(home=Path(home), threads=1), PLAN, files, USE_CASE, "files", print)


def test_the_half_month_of_later_is_a_true_file_with_its_own_dates(tmp_path, tmp_path_factory):
    months = replay(chosen(tmp_path, MONTHS[:1]))
    found = replay(with_last_half_month_later(months, 2, tmp_path_factory.mktemp("later"), USE_CASE))
    assert [str(one) for one in found.periods] == ["2020-06a", "2022-06a"]
    assert found.refused == {}
    assert len(set(found.counts.values())) == 1, "the same rows once more"


def test_before_there_is_enough_to_learn_from_it_says_when_there_will_be(played):
    assert "no labelled decisions" in next(iter(played.attempts.values()))
    assert "enough on about" in list(played.attempts.values())[-1]
    assert played.first.outcome == "promoted"


def test_outcomes_that_came_are_compared_and_the_gap_is_said_and_nothing_storms(played):
    """Guards months of retrainings that learn the same outcomes again, and a gap that counts as outcomes."""
    assert compared(played.estimates).dates > 5
    assert goals_of_months(played)[1].reached
    assert any("No outcome date from 2020-09-14 to 2020-10-01 is complete" in what for _, what in story(played))


def test_across_two_years_nothing_is_judged_or_trained_and_the_message_says_what_to_do(played):
    """Guards a model of 2020 that is trained in 2022, and the advice to lower test_days."""
    goals = goals_of_gap(played)
    assert [one.reached for one in goals] == [True, True, True], goals
    assert "lower test_days" not in message_after(played)
    assert played.mornings[-1].date.year == 2022
