"""`ml-assets check` finds what a use case lacks, in a package from outside, and says where it is."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_assets.lifecycle.check import check_module, check_usecase
from ml_assets.usecases import discover, usecase_modules
from ml_assets_tests import late_payments

HEADS = "-- @entity: invoice\n-- @as_of: what is known at the decision\n-- @owner: receivables\n"
NAME = "looked_at"


@pytest.fixture
def folder(tmp_path) -> Iterator[Path]:
    """A complete use case in a package of its own."""
    package = late_payments.make_package(tmp_path, NAME)
    made = tmp_path / package / NAME
    for file in (made / "features").glob("*.sql"):
        file.write_text(HEADS + file.read_text())
    yield made
    sys.path.remove(str(tmp_path))


def errors(folder: Path) -> list[str]:
    package = folder.parent.name
    importlib.invalidate_caches()
    (module,) = usecase_modules([package])
    _, found = check_module(module)
    return [str(one) for one in found if one.error]


def change(folder: Path, file: str, old: str, new: str) -> None:
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))


def test_a_complete_use_case_has_nothing_wrong(folder):
    assert errors(folder) == []


@pytest.mark.parametrize("usecase", discover(), ids=lambda usecase: usecase.name)
def test_ours_are_complete(usecase):
    assert [str(one) for one in check_usecase(usecase) if one.error] == []


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("features/decisions.sql", "amount * 0.01 AS cost_if_fail,", "", "features/decisions.sql: it does not give c"),
        ("features/decisions.sql", "invoice_id AS entity_id", "invoice_id AS id", "it does not give entity_id"),
        ("features/decisions.sql", "due_date AS outcome_date,", "", "it does not give outcome_date"),
        ("features/decisions.sql", "FROM invoices", "FROM invoice", "features/decisions.sql: reads invoice, which"),
        ("features/decisions.sql", "amount, payer", "amounts, payer", "features/decisions.sql:5: Binder Error"),
        ("features/payer.sql", HEADS, "", "features/payer.sql:1: its first lines should say whose"),
        ("features/payer.sql", "-- @owner: receivables\n", "", "features/payer.sql:1: its first lines should say"),
        ("features/payer.sql", "@owner", "@onwer", "has the tag @onwer"),
        ("features/payer.sql", "GROUP BY payer)", "GROUP BY payer", "features/payer.sql:9: syntax error"),
        ("features/payer.sql", "rate AS payer_late_rate", "rate AS payer_rate", "gives 'payer_rate', which usecase.py"),
        ("features/payer.sql", "rate AS payer_late_rate, ", "", "no SQL gives the declared features payer_late_rate"),
        ("features/payer.sql", "WHERE i.due_date < getvariable('decision_date')", "WHERE i.due_date < now()", "now()"),
        ("features/payer.sql", "SELECT entity_id, rate", "SELECT rate", "payer.sql: it does not give entity_id"),
        ("label.sql", "::INT AS label", "::INT AS outcome", "label.sql: it does not give label"),
        ("label.sql", "p.event_time", "p.event_tim", "label.sql:3: Binder Error"),
        ("contracts.py", "amount: float", "amount: complex", "contracts.py: no Arrow type for <class 'complex'>"),
        ("contracts.py", "amount: float", "known_at: float", "a field cannot be called known_at"),
        ("contracts.py", "amount: float", "amount: flaot", "NameError"),
        ("contracts.py", "class Invoice(", "class Invoice((", "SyntaxError"),
        ("usecase.py", "amount <= 0", "amont <= 0", "a quarantine rule failed"),
        ("usecase.py", "amount <= 0", "event_time > now()", "rule 'amount is not positive': calls now()"),
        ("usecase.py", 'Payer, ("payer",)', 'Payer, ("lei",)', "its key lei is no field of Payer"),
        ("usecase.py", 'rule("payer_late_rate"', 'rule("late_rate"', "ranks by 'late_rate', which is not one of the"),
        ("usecase.py", 'value="amount"', 'value="amounts"', "value: amounts is no feature"),
        ("usecase.py", '"country", "payer_country"', '"country", "payer_land"', "slice country: payer_land is no"),
        ("usecase.py", "capacity=5", "capacity=0", "capacity, how many decisions"),
        ("usecase.py", "tzinfo=UTC", "tzinfo=None", "has no time zone"),
        ("usecase.py", "USE_CASE = ", "CASE = ", "must define USE_CASE"),
        ("usecase.py", '"Payers whose habits have just changed look as they did before.",', "", "there are no limits"),
        ("usecase.py", '"invoices", "looked_at', '"all invoices", "looked_at', "the name of the event 'all invoices'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found_and_its_place_is_said(folder, file, old, new, says):
    """Guards a check that passed whatever was only read when a run met it."""
    change(folder, file, old, new)
    found = errors(folder)
    assert any(says in one for one in found), found
    assert all(len(one.splitlines()) == 1 for one in found)


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("label.sql", "label.sql: the file is missing; it gives entity_id"),
        ("features/decisions.sql", "features/decisions.sql: the file is missing; it gives entity_id"),
    ],
)
def test_a_missing_file_is_named_with_what_it_should_give(folder, file, says):
    (folder / file).unlink()
    assert any(one.startswith(says) for one in errors(folder))


def test_the_sql_of_a_daily_table_is_run_too(folder):
    """Guards: a daily table fails when its first day is made, which is long after it was declared."""
    change(folder, "usecase.py", "references=", 'daily=(DailySpec("paid", "Payments of a day."),),\n    references=')
    change(folder, "usecase.py", "from ml_assets.spec import (", "from ml_assets.spec import (DailySpec, ")
    assert any(one.startswith("daily/paid.sql: the file is missing") for one in errors(folder))


def test_a_daily_table_that_fails_is_named_with_its_line(folder):
    change(folder, "usecase.py", "references=", 'daily=(DailySpec("paid", "Payments of a day."),),\n    references=')
    change(folder, "usecase.py", "from ml_assets.spec import (", "from ml_assets.spec import (DailySpec, ")
    (folder / "daily").mkdir()
    (folder / "daily" / "paid.sql").write_text("SELECT payer,\n  nothing\nFROM payments\n")
    assert any(one.startswith("daily/paid.sql:2: ") for one in errors(folder)), errors(folder)


def test_packages_that_are_none_are_said_in_words(folder, tmp_path, monkeypatch):
    """Guards `ML_ASSETS_USECASE_PACKAGES=my_cases`, after which nothing said what a package has to hold."""
    with pytest.raises(ModuleNotFoundError, match="ML_ASSETS_USECASE_PACKAGES names nowhere, and there is no such"):
        list(usecase_modules(["nowhere"]))
    with pytest.raises(ValueError, match=r"has no use case: .* usecase.py is in .* itself: name the package above it"):
        list(usecase_modules([f"{folder.parent.name}.{NAME}"]))
    here = tmp_path / "elsewhere"
    (here / "cases_here" / "one").mkdir(parents=True)
    for file in ("__init__.py", "one/__init__.py", "one/usecase.py"):
        (here / "cases_here" / file).touch()
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert list(usecase_modules(["cases_here"])) == ["cases_here.one.usecase"]
