"""Nothing that a feed, a colleague or a stranger writes runs at the desk, leaks from it, or is written twice."""

import csv
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser

import pytest
from sqlalchemy import make_url, text

from ml_assets.database.connect import begin
from ml_assets_tests.desk.conftest import desk, desk_url
from ml_assets_tests.desk.made import PATH, Made, attributes, fields, morning, row, score, send

__all__ = ["desk", "desk_url"]

SCRIPT = "<script>alert(1)</script>"
RTL = "\u202eevil\u2066"
HOSTILE = {
    "counterparty": f'{SCRIPT}"><img src=x onerror=alert(1)>', "security": '=HYPERLINK("http://evil.example";"x")',
    "isin": RTL, "pset": "@SUM(1)", "market": "' onmouseover='alert(1)", "counterparty_tier": "L" * 10_000,
    "cut_off": "not a time", "amount": "+1+1", "javascript:alert(1)": "{{ 7*7 }}",
}  # fmt: skip


class Parts(HTMLParser):
    """What a browser would find: tags, their attributes, and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.said: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data):
        self.said.append(data)


def test_names_from_feeds_are_text_everywhere(desk: Made):
    morning(desk.engine, attributes=attributes(1, **HOSTILE))
    ana = desk.person("ana", "leads")
    for address in (PATH, f"{PATH}/row?entity=I1", f"{PATH}/lead", f"{PATH}?q={SCRIPT}&view={SCRIPT}&order={SCRIPT}"):
        answer = ana.get(address)
        assert answer.status_code == 200
        found = Parts(answer.text)
        assert "img" not in found.tags
        assert not [name for name, _ in found.attributes if name.startswith("on") or name == "style"]
        assert not [value for name, value in found.attributes if name in ("href", "src", "action") and not value.startswith(("/", "#", "http://dagster"))]  # fmt: skip # noqa: E501
        assert not {"\u202e", "\u2066"} & set(answer.text)
        assert "49" not in found.said
    whole = ana.get(PATH).text
    assert max(len(one) for one in Parts(whole).said) < 400  # 10,000 characters make no row unreadable


def test_a_spreadsheet_runs_nothing_and_numbers_stay_numbers(desk: Made):
    morning(desk.engine, attributes=attributes(1, **HOSTILE))
    send(desk.person("ana"), "noted|I1", note="=cmd()")
    answer = desk.person("ana").get(f"{PATH}/export.csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="settlement_fails-2026-03-30.csv"'
    headings, *rows = list(csv.reader(io.StringIO(answer.text.removeprefix("\ufeff"))))
    assert headings[:3] == ["Rank", "Instruction", "Counterparty"]
    for one in rows:
        for cell in one:
            assert not re.match(r"[\s\"']*[=+@]", cell) or cell.startswith("'"), cell
    assert float(rows[0][headings.index("Expected cost (EUR)")]) == 800
    assert "\u202e" not in answer.text


def test_pages_let_nothing_of_others_in(desk: Made):
    morning(desk.engine)
    for address in ("/", PATH, "/no_such_use_case", "/static/desk.js", f"{PATH}/row?entity=none"):
        headers = desk.person("ana").get(address).headers
        if not address.startswith("/static"):
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")
    page = desk.person("ana").get(PATH).text
    assert not re.search(r"<script(?! src=\"/static/desk.js\" defer>)|<style|style=| on\w+=", page)


@pytest.mark.parametrize("group", ["others", "strangers", ""])
def test_another_use_cases_people_do_not_learn_that_there_is_a_list(desk: Made, group):
    morning(desk.engine)
    eve = desk.person("eve", group)
    for address in (PATH, f"{PATH}/row?entity=I1", f"{PATH}/export.csv", f"{PATH}/changes", f"{PATH}/lead", f"{PATH}/events?entity=I1"):  # fmt: skip # noqa: E501
        answer = eve.get(address)
        assert answer.status_code == 404
        assert answer.text == eve.get(address.replace("settlement_fails", "no_such")).text
    assert send(eve, "claimed|I1", page=desk.person("ana").get(PATH).text).status_code == 404
    assert desk.lines() == []


def test_who_only_looks_says_nothing(desk: Made):
    morning(desk.engine)
    guest = desk.person("gus", "guests")
    page = guest.get(PATH).text
    assert 'value="claimed|I1"' not in page
    assert send(guest, "claimed|I1", page=page).status_code == 403
    assert desk.lines() == []


def test_a_request_that_has_not_come_through_the_proxy_is_refused(desk: Made):
    morning(desk.engine)
    page = desk.person("ana").get(PATH).text
    outside = desk.person("ana", "leads", peer="10.9.9.9")
    assert outside.get(PATH).status_code == 403
    assert send(outside, "claimed|I1", page=page).status_code == 403
    assert desk.lines() == []


def test_forms_of_others_strangers_and_yesterday_are_refused_or_count_once(desk: Made):
    morning(desk.engine)
    ana, ben = desk.person("ana"), desk.person("ben")
    page = ana.get(PATH).text
    assert send(ben, "claimed|I1", page=page).status_code == 403  # ana's token
    for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}, {"origin": "null"}):
        answer = ana.post(f"{PATH}/feedback", data=fields(page) | {"do": "claimed|I1"}, headers=headers)
        assert answer.status_code == 403
        assert "othing was saved" in answer.text
    assert send(ana, "claimed|I1", page=page, csrf="0" * 64).status_code == 403
    assert desk.lines() == []
    assert send(ana, "claimed|I1", page=page).status_code == 303
    desk.restart()  # the pod is another one, the form the same
    assert "again=1" in send(ana, "claimed|I1", page=page).headers["location"]
    assert len(desk.lines()) == 1


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"do": ""}, "press one of the buttons"),
        ({"do": "dropped|I1"}, "press one of the buttons"),
        ({"do": "claimed|I99"}, "is not on this list"),
        ({"do": "claimed|" + "x" * 5000}, "is not on this list"),
        ({"do": "claimed", "entity": []}, "tick the rows"),
        ({"do": "acted|I1", "action": "'; DROP TABLE feedback; --"}, "is none of the causes"),
        ({"do": "acted|I1", "action": "OTHER"}, "say in the note"),
        ({"do": "noted|I1", "note": "x" * 2001}, "2,001 characters"),
        ({"do": "undone|I1|1"}, "only what you said yourself"),
        ({"do": "undone|I1|99999999999999999999"}, "only what you said yourself"),
        ({"do": "resulted|I1", "result": SCRIPT}, "is no result"),
        ({"do": "claimed|I1", "key": "k'"}, "has no key"),
    ],
)
def test_what_a_form_says_wrongly_is_told_and_not_saved(desk: Made, changed, says):
    morning(desk.engine)
    ana = desk.person("ana")
    answer = ana.post(f"{PATH}/feedback", data=fields(ana.get(PATH).text) | changed)
    assert answer.status_code == 422
    assert says in answer.text
    assert SCRIPT not in answer.text
    assert desk.lines() == []


def test_a_note_is_kept_as_it_was_written_but_for_what_no_page_can_show(desk: Made):
    morning(desk.engine)
    note = f"{SCRIPT} \x00{RTL} 'quoted' ; ünïcode 日本"
    assert send(desk.person("ana"), "noted|I1", note=note).status_code == 303
    assert desk.lines()[0].note == note.replace("\x00", "")
    shown = desk.person("ben").get(f"{PATH}/row?entity=I1").text
    assert "ünïcode 日本" in shown
    assert SCRIPT not in shown
    assert "\u202e" not in shown


def test_a_body_that_is_no_form_or_too_large_is_refused(desk: Made):
    morning(desk.engine)
    ana = desk.person("ana")
    assert ana.post(f"{PATH}/feedback", json={"do": "claimed|I1"}).status_code == 422
    large = ana.post(f"{PATH}/feedback", data={"note": "x" * 600_000})
    assert (large.status_code, "512 KiB" in large.text) == (422, True)
    many = "&".join("entity=I1" for _ in range(3_000))
    kind = {"content-type": "application/x-www-form-urlencoded"}
    assert ana.post(f"{PATH}/feedback", content=many, headers=kind).status_code == 422
    assert desk.lines() == []


@pytest.mark.parametrize(
    "back", ["https://evil.example", "//evil.example", "/\\evil.example", f"{PATH}@evil", "javascript:alert(1)"]
)
def test_a_form_leads_back_to_its_own_list_alone(desk: Made, back):
    morning(desk.engine)
    assert send(desk.person("ana"), "claimed|I1", back=back).headers["location"].startswith(f"{PATH}?done=claimed")


@contextmanager
def gone(url: str) -> Iterator[None]:
    """The server has ended all connections to a database, and takes none, as while it is started anew."""
    name = make_url(url).database
    server = make_url(url).set(database="postgres")
    with begin(server.render_as_string(hide_password=False)) as connection:
        connection.execute(text(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false"))
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"), {"name": name}
        )
    yield
    with begin(server.render_as_string(hide_password=False)) as connection:
        connection.execute(text(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true"))


def test_a_database_that_is_gone_says_what_was_not_saved_and_keeps_it(desk: Made, desk_url: str):
    """Guards the analyst's words when the database is restarted: the form is kept, sent again it counts once."""
    morning(desk.engine)
    ana = desk.person("ana")
    assert send(ana, "claimed|I2").status_code == 303
    page = ana.get(f"{PATH}/row?entity=I1").text
    with gone(desk_url):
        answer = send(ana, "noted|I1", page=page, note="the agent calls back at noon")
        assert answer.status_code == 503
        assert "Nothing of this form was saved" in answer.text
        assert 'value="the agent calls back at noon"' in answer.text
        looked = ana.get(PATH)
        assert (looked.status_code, "All that had been saved is saved" in looked.text) == (503, True)
        assert ana.get("/health/ready").status_code == 503
        assert ana.get("/health/live").status_code == 200
    kept = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', answer.text))
    for _ in range(2):
        assert ana.post(f"{PATH}/feedback", data=kept).status_code == 303
    assert [(line.entity_id, line.note) for line in desk.lines()] == [
        ("I2", ""),
        ("I1", "the agent calls back at noon"),
    ]


def test_a_list_that_is_no_longer_kept_is_told(desk: Made):
    morning(desk.engine)
    page = desk.person("ana").get(PATH).text
    snapshot = fields(page)["snapshot"]
    score(desk.engine, row(1, 0.1))
    desk.restart()
    assert "the list that you had is no longer kept" in desk.person("ana").get(f"{PATH}?snapshot={snapshot}").text


@pytest.mark.parametrize(
    "address", ["/settlement_fails/yesterday", "/settlement_fails/2026-99-99", "/settlement_fails/9999-12-31"]
)
def test_a_date_that_is_none_or_far_away_is_no_error_of_ours(desk: Made, address):
    assert desk.person("ana").get(address).status_code in (200, 404)
