"""The service in the language of operations: real models, a real ledger, a real socket."""

import re
import shutil
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
from pytest_bdd import given, parsers, scenarios, then, when

from ml_assets.database.promotions import Actor, last_change, newest_of_canaries
from ml_assets.learning.scorer import Scorer
from ml_assets.serving.canary import place
from ml_assets_tests.serving.bench import Bench, wait
from ml_assets_tests.serving.filled import MARKET as SMALL_MARKET
from ml_assets_tests.serving.filled import NAME

pytestmark = pytest.mark.long
MARKET = SMALL_MARKET
ANN = Actor.person("ann")

scenarios("operations.feature")


@pytest.fixture
def story() -> dict[str, Any]:
    """What a scenario remembers from step to step."""
    return {}


def ask(bench: Bench) -> dict[str, dict[str, Any]]:
    """All open instructions, by number, as the service answers for them."""
    status, said = bench.ask(f"/v1/{NAME}/score", {"entity_ids": bench.entities()})
    assert (status, said["refused"]) == (200, [])
    return {one["entity_id"]: one for one in said["scores"]}


def given_by(bench: Bench, version: int) -> dict[str, float]:
    """What the saved model of a version gives for each open instruction."""
    rows = bench.scoring.state(NAME).table.rows
    scores = Scorer.from_files(bench.models / f"run{version}").score(rows)
    return dict(zip(rows["entity_id"].to_pylist(), scores.tolist(), strict=True))


def what_ifs(bench: Bench, *numbers: str) -> tuple[str, dict[str, Any]]:
    """Ask about one open instruction under other numbers; return its own number, and the answer."""
    rows = bench.scoring.state(NAME).table.rows
    plain = rows.filter(pc.and_(pc.equal(rows["matching_status"], "NONE"), pc.equal(rows["on_hold_at"], "NONE")))
    twin = plain["entity_id"][0].as_py()
    events = bench.events["settlement_instructions"]
    fields = events.filter(pc.equal(events["instruction_id"], twin)).to_pylist()[-1]
    wanted = bench.usecase.event("settlement_instructions").contract.__struct_fields__
    booked = {name: str(value) if name.endswith("date") else value for name, value in fields.items() if name in wanted}
    booked["event_time"] = fields["event_time"].isoformat()
    asked = [{"settlement_instructions": booked | {"instruction_id": each, "event_id": each}} for each in numbers]
    status, said = bench.ask(f"/v1/{NAME}/score", {"what_if": asked})
    assert status == 200, said
    return twin, said


@given("a service whose champion is version 1, and two more versions")
def service(bench: Bench, story) -> None:
    if not (bench.models / "run3").exists():
        shutil.copytree(bench.models / "run1", bench.models / "run3")
        shutil.copy(bench.models.parent / "run1.json", bench.models.parent / "run3.json")
        for version in (2, 3):
            bench.promote(version, "registered")
    story["recorded"] = len(bench.recorder.answers)


@when("an analyst asks for every open instruction")
def ask_for_all(bench: Bench, story) -> None:
    story["said"] = ask(bench)


@then("each has the probability that version 1 gives")
def as_version_1(bench: Bench, story) -> None:
    expected = given_by(bench, 1)
    assert {number: one["probability"] for number, one in story["said"].items()} == pytest.approx(expected, abs=1e-9)


@then("the reasons of the dearest sum to its log-odds")
def reasons(bench: Bench, story) -> None:
    dearest = max(story["said"].values(), key=lambda one: one["expected_cost"])
    _, said = bench.ask(f"/v1/{NAME}/explain", {"entity_ids": [dearest["entity_id"]]})
    (one,) = said["scores"]
    total = one["reasons"]["base"] + sum(one["reasons"]["contributions"].values())
    assert total == pytest.approx(np.log(one["probability"] / (1 - one["probability"])), abs=1e-4)


@when("a trader asks about an open instruction under a new number")
def ask_before_booking(bench: Bench, story) -> None:
    story["twin"], story["said"] = what_ifs(bench, "NEW-1")


@then("it is scored as that instruction, and nothing is booked")
def as_its_twin(bench: Bench, story) -> None:
    (one,) = story["said"]["scores"]
    assert one["probability"] == pytest.approx(given_by(bench, 1)[story["twin"]], abs=1e-9)
    assert "NEW-1" not in bench.entities()


@when(parsers.parse("version {version:d}, which says what version 1 says, goes into canary for {percent:d} %"))
@when(parsers.parse("version {version:d}, which judges otherwise, goes into canary for {percent:d} %"))
@when(parsers.parse("a wider canary of version {version:d} begins for {percent:d} %"))
def begin(bench: Bench, story, version: int, percent: int) -> None:
    story["before"] = story.get("share_of")
    story["share"] = percent / 100
    bench.promote(version, "canary", share=percent / 100, by=ANN)


@then("the instructions of its share, and no others, are answered by version 3")
@then("the instructions of the smaller share are in the wider one")
def answered_by_share(bench: Bench, story) -> None:
    mine = {number for number in bench.entities() if place(NAME, "run3", number) < story["share"]}
    assert 0 < len(mine) < len(bench.entities())
    wait(lambda: {one["entity_id"] for one in ask(bench).values() if one["stage"] == "canary"} == mine, 20)
    said = ask(bench)
    assert {one["model_version"] for one in said.values() if one["stage"] == "canary"} == {3}
    assert {one["model_version"] for one in said.values() if one["stage"] == "champion"} == {1}
    assert (story["before"] or set()) <= mine
    story["share_of"] = mine


@then("what is recorded says so, with the shadow of every instruction")
def recorded(bench: Bench, story) -> None:
    newest = {one.entity_id: one for one in bench.recorder.answers if not one.what_if}
    assert {n for n, one in newest.items() if one.mlflow_run_id == "run3"} == story["share_of"]
    assert all((one.stage == "canary") == (one.model_version == 3) for one in newest.values())

    def shadow() -> dict[str, float]:
        return {one.entity_id: one.probability for one in bench.shadow.kept if one.mlflow_run_id == "run3"}

    wait(lambda: shadow().keys() == newest.keys(), 20)
    assert shadow() == pytest.approx(given_by(bench, 3), abs=1e-9)
    ids = [one.event_id for one in bench.shadow.kept]
    assert (len(ids), {one.stage for one in bench.shadow.kept}) == (len(set(ids)), {"shadow"}), "each is told once"


@then("what is not booked yet goes by its number")
def what_if_by_number(bench: Bench, story) -> None:
    numbers = [f"NEW-{n}" for n in range(12)]
    _, said = what_ifs(bench, *numbers)
    assert {one["entity_id"]: one["stage"] for one in said["scores"]} == {
        number: "canary" if place(NAME, "run3", number) < story["share"] else "champion" for number in numbers
    }
    assert len({one["stage"] for one in said["scores"]}) == 2


@then("the service shows the canary with its share")
def shown(bench: Bench, story) -> None:
    (one,) = bench.ask("/models")[1]["models"]
    assert (one["canary"]["version"], one["canary"]["share"], one["canary"]["by"]) == (3, 0.3, "ann")
    assert one["canary"]["answers"]
    assert (one["challenger"]["version"], one["champion"]["version"], one["refused"]) == (3, 1, None)
    text = bench.ask("/metrics")[1]["text"]
    assert f'scoring_canary_share{{use_case="{NAME}"}} 0.3' in text
    assert f'scoring_scores_total{{stage="canary",use_case="{NAME}"}}' in text


@when("a person ends the canary")
def end(bench: Bench) -> None:
    bench.promote(3, "canary_ended", by=ANN)


@then(parsers.parse("every instruction is answered by version {version:d}"))
def answered_by(bench: Bench, version: int) -> None:
    def answers() -> set[tuple[str, int]]:
        return {(one["stage"], one["model_version"]) for one in ask(bench).values()}

    wait(lambda: answers() == {("champion", version)}, 20)
    told = {event.entity_id: event for event in bench.changes.kept}
    assert {event.model_version for event in told.values()} == {version}, "who does not ask is told too"


@then("the guard takes it back")
def taken_back(bench: Bench) -> None:
    def line() -> Any:
        return newest_of_canaries(bench.url, NAME)

    for _ in range(20):
        ask(bench)  # before, while and after
    wait(lambda: line().action == "canary_ended", 20)
    assert (line().actor, line().to_version, line().is_person) == ("canary guard", 2, False)


@then("the ledger says which limit was broken, by how much")
def says_why(bench: Bench) -> None:
    line = newest_of_canaries(bench.url, NAME)
    assert re.search(r"score_psi is \d\.\d+, asked is at most 0\.5", line.reason)
    wait(lambda: bench.ask("/models")[1]["models"][0]["canary_ended"] is not None, 20)
    (one,) = bench.ask("/models")[1]["models"]
    assert (one["canary"], one["canary_ended"]["reason"]) == (None, line.reason)
    assert f'scoring_canary_taken_back_total{{use_case="{NAME}"}} 1.0' in bench.ask("/metrics")[1]["text"]


@then("no answer was other than what its version gives")
def none_wrong(bench: Bench, story) -> None:
    expected = {version: given_by(bench, version) for version in (1, 2)}
    answers = [one for one in bench.recorder.answers[story["recorded"] :] if not one.what_if]
    assert answers
    for one in answers:
        assert one.probability == pytest.approx(expected[one.model_version][one.entity_id], abs=1e-9)
        assert one.model_version == (2 if one.stage == "canary" else 1)


@when(parsers.parse("version {version:d} is promoted"))
def promoted(bench: Bench, version: int) -> None:
    bench.promote(version)


@when(parsers.parse("a person rolls back to version {version:d}"))
def rolled_back(bench: Bench, version: int) -> None:
    bench.promote(version, "rolled_back", by=ANN)
    assert last_change(bench.url, NAME).to_version == version


@then(parsers.parse("version {version:d} scores in the shadow"))
def in_shadow(bench: Bench, version: int) -> None:
    wait(lambda: (bench.ask("/models")[1]["models"][0]["challenger"] or {}).get("version") == version, 20)
    wait(lambda: {one.model_version for one in bench.shadow.kept[-5:]} == {version}, 20)
