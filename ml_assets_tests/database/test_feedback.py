"""What people said is in the ledger once, with what was shown; nothing is changed; the view is the pure rule."""

import itertools
import threading
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from ml_assets.database.connect import begin, connect
from ml_assets.database.feedback import feedback_lines, write_feedback
from ml_assets.database.predictions import upsert_predictions
from ml_assets.database.reports import Asked, Given, report_rows
from ml_assets.database.sql_files import shared_sql
from ml_assets.predictions.feedback import RESULTS, Said, Shown, by_entity, standing
from ml_assets_tests.database.factories import prediction, predictions

NOW = datetime(2026, 1, 5, 9, tzinfo=UTC)
DAY = date(2026, 1, 6)
SHOWN = Shown(
    decision_time=NOW - timedelta(hours=2), priority=3, probability=0.4, expected_cost=120.0, cause="LACK",
    model_version=7, mlflow_run_id="run", cut_off_at=NOW + timedelta(hours=6),
)  # fmt: skip
_keys = itertools.count()


def said(entity: str, what: str, actor: str = "ana", value: str | None = None, **more: object) -> Said:
    return Said(
        **{"entity_id": entity, "what": what, "actor": actor, "request_key": f"k{next(_keys)}"} | more, value=value
    )


def write(where, *words: Said, now: datetime = NOW, day: date = DAY):
    return write_feedback(
        where, "fails", day, [(one, SHOWN) for one in words], now=now, lease_length=timedelta(minutes=30),
        causes=("LACK", "NMAT"),
    )  # fmt: skip


def test_a_line_keeps_what_was_shown_and_is_neither_changed_nor_deleted(application_url: str) -> None:
    assert list(write(application_url, said("A", "acted", value="LACK")).saved) == ["A"]
    with begin(application_url) as connection:
        (row,) = connection.execute(text("SELECT * FROM feedback")).mappings()
        assert (row["shown_probability"], row["shown_priority"], row["model_version"]) == (0.4, 3, 7)
    for statement in ("UPDATE feedback SET note = 'x'", "DELETE FROM feedback", "TRUNCATE feedback CASCADE"):
        with pytest.raises(IntegrityError, match="append-only"), begin(application_url) as connection:
            connection.execute(text(statement))


def test_a_form_sent_twice_counts_once_and_the_rest_of_many_rows_is_kept(application_url: str) -> None:
    both = [said("A", "claimed", request_key="form"), said("B", "claimed", request_key="form")]
    assert sorted(write(application_url, *both).saved) == ["A", "B"]
    assert write(application_url, *both).repeated == ("A", "B")
    others = (said("A", "resulted", value="averted"), said("C", "claimed"), said("B", "acted", "ben", "LACK"))
    again = write(application_url, *others)
    assert list(again.saved) == ["C"]
    assert "say first what was done" in again.refused["A"]
    assert [(one.yours.actor, one.theirs.actor) for one in again.conflicts] == [("ben", "ana")]
    assert len(feedback_lines(application_url, "fails", DAY)) == 3
    assert [line.entity_id for line in feedback_lines(application_url, "fails", DAY, "C")] == ["C"]
    assert feedback_lines(application_url, "fails", date(2026, 1, 7)) == []


def test_of_two_who_claim_one_row_at_once_one_gets_it_and_the_other_sees_who(application_url: str) -> None:
    engine = connect(application_url)
    found: list = []
    start = threading.Barrier(4)

    def claim(actor: str) -> None:
        start.wait()
        found.append(write(engine, said("A", "claimed", actor)))

    threads = [threading.Thread(target=claim, args=(name,)) for name in ("ana", "ben", "cem", "dee")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(one.saved) for one in found) == [0, 0, 0, 1]
    (owner,) = {line.actor for line in feedback_lines(engine, "fails", DAY)}
    assert {one.theirs.actor for result in found for one in result.conflicts} == {owner}
    engine.dispose()


def test_what_is_taken_back_is_of_the_same_person_and_row_whoever_writes(application_url: str) -> None:
    """Guards the ledger against a program that does not ask the rule."""
    line = write(application_url, said("A", "claimed")).saved["A"]
    copy = (
        "INSERT INTO feedback (use_case, outcome_date, entity_id, what, note, undoes, actor, at, request_key, "
        "decision_time, shown_priority, model_version, mlflow_run_id, cut_off_at) SELECT use_case, outcome_date, "
        "{entity}, 'undone', '', id, {actor}, at, 'mine', decision_time, 1, 1, '', at FROM feedback WHERE id = :line"
    )
    for entity, actor in (("entity_id", "'ben'"), ("'B'", "actor")):
        with pytest.raises(IntegrityError, match="is none of"), begin(application_url) as connection:
            connection.execute(text(copy.format(entity=entity, actor=actor)), {"line": line})


steps = st.lists(
    st.tuples(
        st.sampled_from(["claimed", "released", "acted", "resulted", "judged", "undone"]),
        st.sampled_from(["ana", "ben"]),
        st.sampled_from(["LACK", "NMAT"]),
        st.sampled_from(RESULTS),
        st.integers(0, 9),
        st.integers(0, 10),
    ),
    max_size=10,
)


@given(steps)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_view_is_the_rule(application_url: str, steps) -> None:
    """Guards reports and alerts against another truth than the desk's."""
    engine = connect(application_url)
    entity = f"E{next(_keys)}"
    for number, (what, actor, cause, result, which, hour) in enumerate(steps):
        lines = feedback_lines(engine, "fails", DAY, entity)
        undoes = lines[which % len(lines)].id if what == "undone" and lines else None
        if what == "undone" and undoes is None:
            continue
        value = {"acted": cause, "judged": cause, "resulted": result}.get(what)
        seen = lines[-1].id if lines else 0
        at = NOW + timedelta(hours=hour, minutes=number)
        write(engine, said(entity, what, actor, value, undoes=undoes, seen=seen), now=at)
    lines = by_entity(feedback_lines(engine, "fails", DAY)).get(entity, [])
    stands = standing(lines, NOW)
    with begin(engine) as connection:
        found = connection.execute(text("SELECT * FROM acted_on WHERE entity_id = :e"), {"e": entity}).mappings().all()
    engine.dispose()
    if not any(line.what in ("claimed", "acted", "resulted", "judged") for line in stands.lines):
        assert found == []
        return
    (row,) = found
    acted, judged, result = stands.acted, stands.judged, stands.result
    assert row["action_for"] == (acted.value if acted else None)
    assert row["acted_at"] == (acted.at if acted else None)
    assert row["in_time"] == bool(acted and acted.at < SHOWN.cut_off_at)
    assert row["result"] == (result.value if result else None)
    assert row["cause"] == (judged.value if judged else None)


def test_reports_and_alerts_read_what_was_said_by_their_time(application_url: str) -> None:
    """Guards a page of a past date that changes with what is said later, and a share without its cut-off."""
    rows = [prediction(entity, p, use_case="fails", outcome_date=DAY) for entity, p in (("A", 0.9), ("B", 0.8))]
    upsert_predictions(application_url, predictions(*rows))
    write(application_url, said("A", "acted", value="LACK"))
    write(application_url, said("B", "acted", value="NMAT"), now=SHOWN.cut_off_at)
    write(application_url, said("A", "judged", value="NMAT"), now=NOW + timedelta(hours=1))
    share = (
        "SELECT avg(coalesce(a.in_time, false)::int)::float AS share, count(a.cause) AS judged FROM work_list AS w "
        "JOIN report ON w.outcome_date = report.date AND w.priority <= report.capacity "
        "LEFT JOIN acted_on AS a ON a.outcome_date = w.outcome_date AND a.entity_id = w.entity_id"
    )

    def asked(as_of: datetime, sql: str = share) -> list[dict]:
        causes = Given(
            {"code": str, "name": str, "action": str}, [{"code": "LACK", "name": "lack", "action": "borrow"}]
        )
        of = Asked("fails", DAY, as_of, "EUR", 100, 1)
        return report_rows(application_url, sql, of, {"causes": causes}, file="a.sql")

    assert asked(NOW - timedelta(minutes=1)) == [{"share": 0.0, "judged": 0}]
    assert asked(NOW) == [{"share": 0.5, "judged": 0}]
    assert asked(SHOWN.cut_off_at) == [{"share": 0.5, "judged": 1}]
    whole, *_ = asked(SHOWN.cut_off_at, shared_sql("reports")["acted_on"])
    assert (whole["listed"], whole["in_time"], whole["late"], whole["judged"], whole["confirmed"]) == (2, 1, 1, 1, 0)
