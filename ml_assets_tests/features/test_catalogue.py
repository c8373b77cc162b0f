"""The catalogue says of every feature what is declared, and the page in docs/ is up to date."""

import dataclasses
from pathlib import Path

import pytest

from ml_assets.features import catalogue, catalogue_page, columns_read
from ml_assets.usecases import discover
from ml_assets_tests import late_payments

PAGE = Path(__file__).parents[2] / "docs" / "features.md"


def test_the_page_is_up_to_date():
    """It is of the use cases that it names: adding another one is not a change of these."""
    page = PAGE.read_text(encoding="utf-8")
    named = [usecase for usecase in discover() if f"(`{usecase.name}`)" in page]
    assert {usecase.name for usecase in named} >= {"cns_fails", "settlement_fails"}
    assert page == catalogue_page(named), "run: ml-assets features > docs/features.md"


@pytest.mark.parametrize("usecase", discover(), ids=lambda usecase: usecase.name)
def test_every_feature_says_all_of_it_beside_its_sql(usecase):
    entries = catalogue(usecase)
    assert [entry.name for entry in entries] == [feature.name for feature in usecase.features]
    for entry in entries:
        assert all((entry.entity, entry.as_of, entry.owner, entry.description)), entry.name
        assert entry.name in usecase.feature_sql[entry.file.removesuffix(".sql")] or entry.name == "slot"
        for tag in ("@entity", "@as_of", "@owner"):
            assert tag in usecase.feature_sql[entry.file.removesuffix(".sql")]


def test_what_a_file_does_not_say_is_the_use_case_s(tmp_path):
    usecase = late_payments.usecase_of(late_payments.make_package(tmp_path))
    by_name = {entry.name: entry for entry in catalogue(usecase)}
    assert (by_name["amount"].file, by_name["payer_country"].file) == ("decisions.sql", "payer.sql")
    assert by_name["amount"].entity == usecase.entity
    assert by_name["amount"].owner == usecase.owner
    misspelt = dataclasses.replace(usecase)
    misspelt.__dict__["feature_sql"] = {
        **usecase.feature_sql,
        "payer": "-- @onwer: me\n" + usecase.feature_sql["payer"],
    }
    with pytest.raises(ValueError, match=r"payer\.sql has the tag @onwer; the tags are @entity, @as_of, @owner"):
        catalogue(misspelt)


def test_only_columns_that_the_sql_can_need_are_read(tmp_path):
    usecase = late_payments.usecase_of(late_payments.make_package(tmp_path, "narrow"))
    payments = usecase.event("payments")
    always = {"event_id", "event_time", "broker_time", "known_at", "business_date"}
    assert set(columns_read(usecase, payments)) == {*always, "invoice_id", "payer"}
    nobody = dataclasses.replace(usecase)
    nobody.__dict__["feature_sql"] = {"decisions": "SELECT 1 AS x FROM payments"}
    nobody.__dict__["label_sql"] = "SELECT 1"
    assert set(columns_read(nobody, payments)) == always
    nobody.__dict__["feature_sql"] = {"decisions": "SELECT DISTINCT * FROM payments"}
    assert "payer" in columns_read(nobody, payments)
