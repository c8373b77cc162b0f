"""The desk in a browser: a morning, two analysts at once, no script, no mouse, a narrow window, and no barriers."""

import csv
import re
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from ml_assets.desk.people import by_proxy, networks, read_roles
from ml_assets_tests.desk.browser import executable
from ml_assets_tests.desk.made import MORNING, PATH, ROLES, Made, attributes, morning, reasons, row, score

pytestmark = pytest.mark.desk


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not (path := executable()):
        pytest.fail("there is no Chromium; `python -m ml_assets_tests.desk.browser` installs it or says why not")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def address(desk: Made) -> Iterator[str]:
    """Where the desk listens, behind a proxy on this machine."""
    desk.door = by_proxy(networks("127.0.0.1/32"), read_roles(ROLES))
    desk.restart()
    morning(desk.engine)
    server = uvicorn.Server(uvicorn.Config(desk.app, port=0, log_level="warning", proxy_headers=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(20)


@pytest.fixture
def person(browser: Browser, address: str) -> Iterator[object]:
    """A function that opens the list as a person; whatever a page complains of fails the test."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def open_list(name: str, group: str = "analysts", path: str = PATH, **options: object) -> Page:
        headers = {"x-forwarded-email": f"{name}@bank.example", "x-forwarded-groups": group}
        context = browser.new_context(extra_http_headers=headers, base_url=address, **options)
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console", lambda said: complaints.append(said.text) if "Content Security Policy" in said.text else None
        )
        page.goto(path)
        return page

    yield open_list
    for context in contexts:
        context.close()
    assert complaints == []


def states(page: Page) -> dict[str, str]:
    return {
        one.get_attribute("data-entity"): one.locator("[data-state]").inner_text()
        for one in page.locator("tr[data-entity]").all()
    }


def barriers(page: Page) -> list[str]:
    """What axe finds on a page, with where."""
    rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = Axe().run(page, options={"runOnly": rules}).response["violations"]
    return [f"{one['id']}: {node['html'][:120]}" for one in found for node in one["nodes"][:5]]


def test_a_morning_from_login_to_the_last_row_worked(desk: Made, person):
    page = person("ana", path="/")
    expect(page).to_have_title("Settlement fails, 2026-03-30: the list")
    expect(page.locator("tr.capacity")).to_contain_text("capacity is 5")
    page.get_by_role("button", name="Claim I1").click()
    expect(page.get_by_text("Saved: 1 row claimed.")).to_be_visible()
    page.get_by_role("link", name="I1", exact=True).click()
    page.get_by_role("textbox", name="Note").fill("called: they deliver at noon")
    page.get_by_role("button", name="Acted").click()
    page.get_by_label("What came of it").select_option("averted")
    page.get_by_role("button", name="Save the result").click()
    page.get_by_label("The reason was").select_option(label="really cash")
    page.get_by_role("button", name="Save the reason").click()
    expect(page.locator(".lines")).to_contain_text("called: they deliver at noon")
    page.get_by_role("link", name="The list of Monday, 30 March").click()
    for name in ("I2", "I3", "I4"):
        page.get_by_role("button", name=f"Acted on {name} as suggested").click()
    page.get_by_label("Tick I5").check()
    page.locator(".bulk select[name=action]").select_option("OTHER")
    page.get_by_placeholder("Note").fill("sold it")
    page.get_by_role("button", name="Acted", exact=True).click()
    expect(page.locator(".figures")).to_contain_text("Left\n0", use_inner_text=True)
    page.get_by_role("link", name="Acted on 5").click()
    assert states(page) == {"I1": "averted", **dict.fromkeys(["I2", "I3", "I4", "I5"], "acted on")}
    assert [line.what for line in desk.lines()].count("acted") == 5
    assert {line.actor for line in desk.lines()} == {"ana@bank.example"}


def test_two_analysts_at_once(desk: Made, person):
    ana, ben, cem = person("ana"), person("ben"), person("cem")
    ana.get_by_role("button", name="Claim I2").click()
    ana.wait_for_load_state()
    ben.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # what it does every 15 seconds
    expect(ben.locator("tr#I2 [data-owner]")).to_have_text("ana@bank.example")
    expect(ben.get_by_role("button", name="Claim I2")).to_have_count(0)
    cem.get_by_role("button", name="Claim I2").click()
    expect(cem.get_by_role("heading", level=1)).to_have_text("Nothing was saved")
    expect(cem.get_by_role("main")).to_contain_text("ana@bank.example")
    assert barriers(cem) == []
    cem.get_by_role("button", name="Take it over from ana@bank.example").click()
    expect(cem.locator("tr#I2 [data-owner]")).to_contain_text("cem@bank.example")
    assert [(line.actor, line.value) for line in desk.lines()][-1] == ("cem@bank.example", "taken over")


def test_the_list_stays_until_the_reader_asks_for_the_newer_one(desk: Made, person):
    page = person("ana")
    expect(page.locator("[data-newer]")).to_be_hidden()
    score(desk.engine, row(8, 0.99, decision_time=MORNING + timedelta(hours=1), reason_codes=reasons("LACK", LACK=3.0)))
    for _ in range(2):  # the first look begins to read it
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("[data-newer]")).to_be_visible()
    assert next(iter(states(page))) == "I1"
    page.get_by_role("link", name="show the newer list").click()
    expect(page.locator("tr[data-entity]").first).to_contain_text("+89 points")


def test_filter_sort_search_and_export(desk: Made, person, tmp_path: Path):
    page = person("ana")
    page.get_by_label("Market").select_option("XPAR")  # applies at once
    expect(page.locator("tr[data-entity]")).to_have_count(4)
    page.get_by_role("link", name="P(fail)").click()
    expect(page.locator("th[aria-sort]")).to_contain_text("P(fail)")
    assert list(states(page)) == ["I8", "I6", "I4", "I2"]
    with page.expect_download() as download:
        page.get_by_role("link", name="Export CSV").click()
    download.value.save_as(tmp_path / "list.csv")
    rows = list(csv.DictReader((tmp_path / "list.csv").read_text(encoding="utf-8-sig").splitlines()))
    assert [one["Instruction"] for one in rows] == ["I8", "I6", "I4", "I2"]
    page.keyboard.press("/")
    page.keyboard.type("bond 4")
    page.keyboard.press("Enter")
    expect(page.locator("tr[data-entity]")).to_have_count(1)
    page.get_by_role("link", name="Clear").click()
    expect(page.locator("tr[data-entity]")).to_have_count(8)


def test_without_a_script_nothing_is_missing(desk: Made, person):
    page = person("ana", java_script_enabled=False)
    page.get_by_label("Tick I1").check()
    page.get_by_label("Tick I2").check()
    page.get_by_role("button", name="Acted", exact=True).first.click()
    assert sorted(line.entity_id for line in desk.lines()) == ["I1", "I2"]
    page.get_by_role("link", name="Acted on 2").click()
    page.get_by_role("link", name="I1", exact=True).click()
    page.get_by_role("button", name="Take back: acted").click()
    page.get_by_role("link", name="Show its events").click()
    expect(page.get_by_role("main")).to_contain_text("No event that names it had landed")
    page.get_by_role("link", name="I1").click()
    expect(page.locator(".lines")).to_contain_text("taken back")


def test_with_the_keyboard_alone(desk: Made, person):
    page = person("ana")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    for key in ("j", "j", "k", "c"):
        page.keyboard.press(key)
    page.wait_for_url("**done=claimed**")
    for key in ("j", "a"):
        page.keyboard.press(key)
    page.wait_for_url("**done=acted**")
    page.keyboard.press("j")
    page.keyboard.press("x")
    expect(page.locator("input[name=entity]:checked")).to_have_count(1)
    page.keyboard.press("o")
    page.wait_for_url("**/row?entity=I2**")
    assert [(line.entity_id, line.what) for line in desk.lines()] == [("I1", "claimed"), ("I1", "acted")]


@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_narrow_window_nothing_is_cut_off(desk: Made, person, width: int):
    """Guards a phone, and the smallest screen at a desk, with names as long as they are shown."""
    long = attributes(1, counterparty="Société générale de banque et de titres", security="Liquid Share 317 of a name")
    score(desk.engine, row(1, 0.8, attributes=long), *(row(n, 0.9 - n / 10) for n in range(2, 9)))
    for path in (PATH, f"{PATH}/row?entity=I1", f"{PATH}/lead"):
        page = person("lea", "leads", path=path, viewport={"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), path
        assert barriers(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_a_barrier(desk: Made, person, scheme: str):
    """Contrast, labels, focus, order of headings: on each page, with rows in every state."""
    early = attributes(6, cut_off="07:15")
    score(desk.engine, *(row(n, 0.9 - n / 10, **({"attributes": early} if n == 6 else {})) for n in range(1, 9)))
    page = person("lea", "leads", color_scheme=scheme)
    page.get_by_role("button", name="Claim I1").click()
    page.get_by_role("button", name="Acted on I2 as suggested").click()
    person("ben").get_by_role("button", name="Claim I3").click()
    for path in (f"{PATH}?view=all", f"{PATH}/row?entity=I2", f"{PATH}/row?entity=I8", f"{PATH}/lead", "/", "/nowhere",
                 f"{PATH}?q=nothing", f"{PATH}/events?entity=I1"):  # fmt: skip
        page.goto(path)
        page.wait_for_load_state("networkidle")
        assert barriers(page) == [], path


def test_time_left_ticks_and_a_row_goes_grey_at_its_cut_off(person):
    page = person("ana")
    expect(page.locator("tr#I1 [data-until]")).to_have_text(re.compile("^8 h (29|30) min$"))
    page.clock.install()
    page.goto(PATH)
    page.clock.fast_forward("08:10:00")
    expect(page.locator("tr#I1 [data-until]")).to_have_text(re.compile("^(19|20) min$"))
    expect(page.locator("tr#I1 [data-until]")).to_have_class("soon")
    page.clock.fast_forward("01:00:00")
    expect(page.locator("tr#I1 [data-until]")).to_have_text("past")
    expect(page.locator("tr#I1")).to_have_class("open past")
