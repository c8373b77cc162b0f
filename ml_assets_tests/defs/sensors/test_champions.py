"""When the sensor on the ledger asks for `served_stages`: the rule alone, and with a ledger and a run of the asset."""

from dataclasses import replace
from datetime import UTC, datetime

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.database.promotions import (
    Actor,
    LedgerEntry,
    ModelIdentity,
    StageLines,
    declare_tiers,
    record,
    take_back,
    writing,
)
from ml_assets.definitions import build_definitions
from ml_assets.defs.resources import Platform
from ml_assets.defs.sensors.champions import Stages, champions_sensor, is_due
from ml_assets_tests import late_payments

RUN = Actor.run("4711")
CHAMPION = LedgerEntry(
    7, "fails", "promoted", None, 1, "ann", True, False, None, "e" * 64, "x", datetime(2026, 1, 5, tzinfo=UTC), "ann",
    "run1", "a" * 64, None, None,
)  # fmt: skip
CANARY = replace(CHAMPION, id=8, action="canary", mlflow_run_id="run2", share=0.1)
ALONE, BESIDE = StageLines(CHAMPION, None, None), StageLines(CHAMPION, CANARY, CANARY)


@pytest.mark.parametrize(
    ("before", "lines", "served", "seconds", "due"),
    [
        (Stages(), ALONE, None, 1e9, False),  # no service, no canary: nothing to show
        (Stages(), ALONE, 3, 0, True),
        (Stages(7, None, 3), ALONE, 3, 1e9, False),  # nothing new has landed
        (Stages(7, None, 3), ALONE, 4, 3599, False),
        (Stages(7, None, 3), ALONE, 4, 3600, True),
        (Stages(7, None, 3), BESIDE, 3, 0, True),  # a canary has begun
        (Stages(7, None, None), BESIDE, None, 0, True),
        (Stages(7, 8, 3), BESIDE, 4, 899, False),
        (Stages(7, 8, 3), BESIDE, 4, 900, True),
        (Stages(7, 8, 3), ALONE, 3, 0, True),  # and has ended by the next champion
    ],
)
def test_stages_are_counted_when_the_ledger_has_changed_and_now_and_then(before, lines, served, seconds, due):
    assert is_due(before, lines, served, before.at + seconds) == due


@given(st.integers(0, 9) | st.none(), st.integers(0, 9) | st.none(), st.integers(0, 9) | st.none(), st.floats(0, 1e6))
def test_what_was_just_asked_for_is_not_asked_for_again(champion, canary, served, now):
    lines = StageLines(
        replace(CHAMPION, id=champion) if champion is not None else None,
        replace(CANARY, id=canary) if canary is not None else None,
        None,
    )
    assert not is_due(Stages(champion, canary, served, now), lines, served, now)


def test_a_canary_is_shown_and_so_is_its_end(tmp_path, application_url, monkeypatch):
    """The sensor asks once for each change of the ledger, and the run shows it: share, by whom, and why it ended."""
    usecase = late_payments.usecase_of(late_payments.make_package(tmp_path, "shown"))
    monkeypatch.setattr("ml_assets.platform.database_url", lambda *_: application_url)
    platform = Platform(home=str(tmp_path))
    definitions = build_definitions([usecase], platform)
    sensor = champions_sensor([usecase])
    declare_tiers(application_url, {usecase.name: "low"})

    def add(action, version, actor=RUN, **said):
        model = ModelIdentity(version, f"run{version}", f"{version:064d}", "e" * 64)
        with writing(application_url, usecase.name) as ledger:
            return record(ledger, usecase.name, action, model=model, actor=actor, **({"reason": "x"} | said))

    def asked(cursor):
        with dg.build_sensor_context(cursor=cursor, resources={"platform": platform}) as context:
            tick = sensor.evaluate_tick(context)
        return tick.run_requests, tick.cursor

    def shown():
        with dg.DagsterInstance.ephemeral() as instance:
            made = definitions.resolve_job_def("shown_stages").execute_in_process(instance=instance)
            (event,) = made.get_asset_materialization_events()
            return {name: value.value for name, value in event.materialization.metadata.items()}

    for version in (1, 2):
        add("registered", version)
    add("promoted", 1)
    requests, cursor = asked(None)
    assert requests == [], "the service has said nothing, and there is no canary"
    canary = add("canary", 2, Actor.person("ann"), share=0.1)
    (request,), cursor = asked(cursor)
    assert request.job_name == "shown_stages"
    assert asked(cursor)[0] == []
    said = shown()
    assert (said["champion"], said["challenger"], said["canary"]) == ("version 1", "version 2", "version 2")
    assert (said["canary's share"], said["canary by"]) == (0.1, "ann")
    assert take_back(application_url, canary, "score_psi is 0.9")
    (again,), cursor = asked(cursor)
    assert again.run_key != request.run_key
    assert shown()["canary"] == "none; that of version 2 has ended: score_psi is 0.9"
    platform.close()
