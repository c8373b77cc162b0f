"""The desk in its own words: what analysts and their lead do in a morning."""

import re
from dataclasses import replace
from datetime import timedelta
from html import unescape

import pytest
from pytest_bdd import given, parsers, scenarios, then, when
from sqlalchemy import text

from ml_assets.database.connect import begin
from ml_assets.usecases.settlement_fails.contracts import SettlementConfirmation, SettlementStatus
from ml_assets_tests.desk.made import (
    DAY,
    MORNING,
    NOW,
    PATH,
    USE_CASE,
    Made,
    morning,
    reasons,
    row,
    score,
    send,
    told,
)

scenarios("desk.feature")
# A list of names: "I1, I2 and I3".
NAMES = re.compile(r"I\d+")


@pytest.fixture
def pages() -> dict[str, str]:
    """The page that each person has in front of him."""
    return {}


@pytest.fixture
def answers() -> dict[str, object]:
    """What the desk answered each person last."""
    return {}


@given("a team of five, and eight open instructions that were scored at 07:00 UTC")
def _(desk: Made):
    morning(desk.engine)


@given(parsers.re(r"(?P<names>ana( and ben)?) looks? at the list"))
def _(desk: Made, pages, names):
    for name in names.split(" and "):
        pages[name] = desk.person(name).get(PATH).text


@given("a third of the list is shown without score")
def _(desk: Made):
    usecase = replace(USE_CASE, desk=replace(USE_CASE.desk, hidden_share=0.34))
    desk.usecases = (usecase,)
    desk.restart()


@when(parsers.re(r"(?P<name>ana|ben) (claims (?P<claimed>I\d)|acts on (?P<acted>I\d) as suggested)$"))
def _(desk: Made, name, claimed, acted):
    answer = send(desk.person(name), f"claimed|{claimed}" if claimed else f"acted|{acted}")
    assert answer.status_code == 303, answer.text


@when(parsers.re(r"ana ticks (?P<names>.+) and (?P<does>claims|acts on) them.*"))
def _(desk: Made, names, does):
    assert (
        send(desk.person("ana"), "claimed" if does == "claims" else "acted", *NAMES.findall(names)).status_code == 303
    )


@when(parsers.re(r"ben (?P<does>claims|acts on) (?P<entity>I\d) on the page that he has"))
def _(desk: Made, pages, answers, does, entity):
    what = "claimed" if does == "claims" else "acted"
    answers["ben"] = send(desk.person("ben"), f"{what}|{entity}", page=pages["ben"])


@when(parsers.parse("ben takes {entity} over"))
def _(desk: Made, answers, entity):
    page = answers["ben"].text
    assert f'value="taken over|{entity}"' in page
    assert send(desk.person("ben"), f"taken over|{entity}", page=page).status_code == 303


@when("ana presses claim on I1 twice on one page")
def _(desk: Made):
    page = desk.person("ana").get(PATH).text
    first, second = (send(desk.person("ana"), "claimed|I1", page=page) for _ in range(2))
    assert (first.status_code, second.status_code) == (303, 303)
    assert "again=1" in second.headers["location"]
    assert "counts once" in desk.person("ana").get(second.headers["location"]).text


@when(parsers.parse('ana says that the result of I1 is "{result}"'))
def _(desk: Made, result):
    assert send(desk.person("ana"), "resulted|I1", result=result).status_code == 303


@when("ana says that the reason of I1 was right")
def _(desk: Made):
    assert send(desk.person("ana"), "judged|I1", cause="RIGHT").status_code == 303


@when(parsers.parse('ana says that the reason of I1 was really {cause} with the note "{note}"'))
def _(desk: Made, cause, note):
    assert send(desk.person("ana"), "judged|I1", cause=cause, note=note).status_code == 303


@when("ana takes that back")
def _(desk: Made):
    shown = desk.person("ana").get(f"{PATH}/row?entity=I1").text
    (button,) = re.findall(r'value="(undone\|I1\|\d+)"', shown)
    assert send(desk.person("ana"), button, page=shown).status_code == 303


@when("31 minutes pass")
def _(desk: Made):
    desk.at(NOW + timedelta(minutes=31))


@when("it is 16:01 UTC")
def _(desk: Made):
    desk.at(MORNING + timedelta(hours=9, minutes=1))


@when("I8 is scored anew and is now the dearest")
def _(desk: Made):
    score(desk.engine, row(8, 0.99, decision_time=MORNING + timedelta(hours=1), reason_codes=reasons("LACK", LACK=3.0)))


@when("she asks for the newer list")
def _(desk: Made, pages):
    (link,) = re.findall(r'<a href="([^"]+)">show the newer list', pages["ana"])
    pages["ana"] = desk.person("ana").get(unescape(link)).text


@when("I1 settles, half of I2 settles, and I3 is cancelled at 08:00 UTC")
def _(desk: Made, reference_data):
    at = MORNING + timedelta(hours=1)
    settled = [
        SettlementConfirmation(event_id=f"C{n}", event_time=at, instruction_id=f"I{n}", quantity=quantity)
        for n, quantity in ((1, 1000), (2, 500))
    ]
    cancelled = [SettlementStatus(event_id="S3", event_time=at, instruction_id="I3", status="CANC", reason=None)]
    told(desk, reference_data, settlement_confirmations=settled, settlement_status=cancelled)
    desk.at(at + timedelta(minutes=5))


@when("ana acts on the hidden row for NMAT")
def _(desk: Made, pages):
    assert send(desk.person("ana"), f"acted|{pages['hidden']}", action="NMAT").status_code == 303


def line_of(page: str, entity: str) -> str:
    found = re.search(rf'<tr id="{entity}".*?</tr>', page, re.DOTALL)
    return found[0] if found else ""


@then(parsers.re(r'the list says that (?P<entity>I\d) is "(?P<state>[a-z ]+)"( with (?P<owner>\w+))?'))
def _(desk: Made, entity, state, owner):
    found = line_of(desk.person("ana").get(f"{PATH}?view=all").text, entity)
    assert f"<span data-state>{state}</span>" in found
    assert (f"<td data-owner>{owner}@bank.example" in found) if owner else "<td data-owner></td>" in found


@then("I1 and I3 are no longer to do, and I2 still is")
def _(desk: Made):
    page = desk.person("ana").get(PATH).text
    assert re.findall(r'<tr id="(I\d)"', page) == ["I2", "I4", "I5", "I6", "I7", "I8"]
    assert re.search(r"No longer open</dt><dd>2<", page)
    assert re.search(r"Left</dt><dd>3<", page)
    closed = desk.person("ana").get(f"{PATH}?view=closed").text
    assert re.findall(r'<tr id="(I\d)"', closed) == ["I1", "I3"]
    assert "since 10:00" in line_of(closed, "I1")  # the desk's time zone
    assert "It is no longer open" in desk.person("ana").get(f"{PATH}/row?entity=I3").text
    assert "No longer open, nothing done</dt><dd>2<" in desk.person("lea", "leads").get(f"{PATH}/lead").text
    sheet = desk.person("ana").get(f"{PATH}/export.csv?view=all").text
    assert {line.split(",")[1] for line in sheet.splitlines() if ",no longer open," in line} == {"I1", "I3"}


@then("ana's page is told of I1 and I3 without being opened again")
def _(desk: Made):
    assert desk.person("ana").get(f"{PATH}/changes?snapshot=x&after=0").json()["closed"] == ["I1", "I3"]


@then("I1 is no longer on her list of what is to do")
def _(desk: Made):
    page = desk.person("ana").get(PATH).text
    assert not line_of(page, "I1")
    assert line_of(page, "I2")


@then(parsers.re(r"the ledger has for (?P<entity>I\d) (?P<whats>[a-z, ]+) by ana"))
def _(desk: Made, entity, whats):
    lines = [line for line in desk.lines() if line.entity_id == entity]
    assert [line.what for line in lines] == whats.split(", ")
    assert {line.actor for line in lines} == {"ana@bank.example"}


@then("each line has the score, the rank and the model that she saw")
def _(desk: Made):
    with begin(desk.engine) as connection:
        found = connection.execute(
            text("SELECT DISTINCT shown_probability, shown_priority, shown_cause, mlflow_run_id FROM feedback")
        ).all()
    assert [tuple(one) for one in found] == [(0.8, 1, "LACK", "run-of-model-1")]


@then("3 of the 5 are acted on")
def _(desk: Made):
    page = desk.person("ana").get(PATH).text
    assert re.search(r"To act on</dt><dd>5<.*?Acted on</dt><dd>3 ", page, re.DOTALL)


@then("ben is told with a conflict that ana has it")
def _(answers):
    assert answers["ben"].status_code == 409
    assert "ana@bank.example" in answers["ben"].text
    assert "has it until 10:00" in answers["ben"].text  # the desk's time zone


@then("ben is told with a conflict what ana did")
def _(answers):
    assert answers["ben"].status_code == 409
    assert "acted on: not matched, or sent late to match" in answers["ben"].text
    assert "Save mine too" in answers["ben"].text or "Take it over" in answers["ben"].text


@then("only one line says that I2 was acted on")
def _(desk: Made):
    assert [(line.actor, line.what) for line in desk.lines()] == [("ana@bank.example", "acted")]


@then("ben can claim it")
def _(desk: Made):
    assert send(desk.person("ben"), "claimed|I1").status_code == 303


@then("her list is as it was, and says that there is newer scoring")
def _(desk: Made, pages):
    (snapshot,) = re.findall(r'name="snapshot" value="(\w+)"', pages["ana"])[:1]
    again = desk.person("ana").get(f"{PATH}?snapshot={snapshot}").text
    assert (
        re.findall(r'<tr id="(I\d)"', again)
        == re.findall(r'<tr id="(I\d)"', pages["ana"])
        == [f"I{n}" for n in range(1, 9)]
    )
    assert "data-newer hidden" in pages["ana"]
    assert "data-newer hidden" not in again
    assert desk.person("ana").get(f"{PATH}/changes?snapshot={snapshot}&after=0").json()["newer"] is True
    pages["ana"] = again


@then("I8 is first, and marked as changed")
def _(pages):
    assert re.findall(r'<tr id="(I\d)"', pages["ana"])[0] == "I8"
    assert "<mark>+89 points</mark>" in line_of(pages["ana"], "I8")
    assert "<mark>" not in line_of(pages["ana"], "I1")


@then("nothing is left to do, and 5 were missed")
def _(desk: Made):
    page = desk.person("ana").get(PATH).text
    assert "Nothing is left to do" in page
    assert "Past the cut-off</dt><dd>5<" in page


@then("the ledger knows for I1 the reason NMAT where LACK was shown")
def _(desk: Made):
    with begin(desk.engine) as connection:
        found = connection.execute(text("SELECT cause, shown_cause FROM acted_on WHERE entity_id = 'I1'")).one()
    assert tuple(found) == ("NMAT", "LACK")


@then("a hidden row shows neither score nor reason")
def _(desk: Made, pages):
    listed = desk.desk.lists.newest(desk.usecases[0], DAY)
    hidden = next(row for row in listed.rows if row.hidden)
    pages["hidden"], pages["probability"] = hidden.entity_id, f"{100 * hidden.probability:.0f} %"
    found = line_of(desk.person("ana").get(f"{PATH}?view=all").text, hidden.entity_id)
    alone = desk.person("ana").get(f"{PATH}/row?entity={hidden.entity_id}").text
    for shown in (found, alone):
        assert "not shown: judge it yourself" in shown
        assert pages["probability"] not in shown
        assert "log-odds" not in shown
    alike = desk.person("ana").get(f"{PATH}/similar?entity={hidden.entity_id}&part=1").text
    assert alike == "<p>They come with the score, once somebody has acted.</p>\n"
    # It would be computed again, and told to nine digits.
    traced = desk.person("ana").get(f"{PATH}/trace?entity={hidden.entity_id}&part=1").text
    assert traced == "<p>It comes with the score, once somebody has acted.</p>\n"
    sheet = desk.person("ana").get(f"{PATH}/export.csv?view=all").text
    assert next(one for one in sheet.splitlines() if f",{hidden.entity_id}," in one).startswith(",")


@then("the ledger has no score for it, and now the score is shown")
def _(desk: Made, pages):
    with begin(desk.engine) as connection:
        assert connection.scalar(text("SELECT shown_probability FROM feedback")) is None
    assert pages["probability"] in desk.person("ana").get(f"{PATH}/row?entity={pages['hidden']}").text


@then("the lead sees how many of such rows were acted on, beside the others")
def _(desk: Made):
    page = desk.person("lea", "leads").get(f"{PATH}/lead").text
    assert re.search(r"Shown without score, acted on</dt><dd>1 of \d+ <small>0 % of the others</small>", page)


def test_a_row_says_why_there_are_no_similar_cases(desk: Made):
    """Guards a page that fails, or shows nothing, before the first outcomes have come."""
    morning(desk.engine)
    for query in ("entity=I1", "entity=I1&part=1"):
        answer = desk.person("ana").get(f"{PATH}/similar?{query}")
        assert answer.status_code == 200
        assert "has no past cases yet: they come with the outcomes of what was scored" in answer.text


@then("the lead's page says 4 acted on, ana 3 and ben 1, and what was saved")
def _(desk: Made):
    page = desk.person("lea", "leads").get(f"{PATH}/lead").text
    assert "Acted on</dt><dd>4 <small>80 %" in page
    for name, number in (("ana", 3), ("ben", 1)):
        assert re.search(rf"{name}@bank.example</th><td class=\"number\">{number}</td>", page)
    # Half of 800 + 700 + 600 + 500, less four times the cost of acting.
    assert "1,280 EUR" in page


@then("an analyst does not see the lead's page")
def _(desk: Made):
    assert desk.person("ana").get(f"{PATH}/lead").status_code == 403
