"""Database and desk are restarted while people work: what was answered as saved is saved, and all of it once."""

import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest

from ml_assets.database.migrate import migrate
from ml_assets.local.embedded.postgres import client_programs, server_for, stop_server
from ml_assets_tests.desk.made import PATH, Made, fields, made_desk, morning

pytestmark = pytest.mark.operating

NOTES, ANALYSTS, RESTARTS = 12, ("ana", "ben"), 2


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[Made, Path]]:
    """A desk on a database server of its own, and the folder of its data."""
    home = tmp_path / "home"
    server = server_for(home)
    server.create_databases("desk")
    migrate(server.url("desk"))
    try:
        with made_desk(server.url("desk"), tmp_path) as made:
            yield made, server.data
    finally:
        stop_server(home)


def crash(data: Path) -> None:
    """End the server at once, without a checkpoint, as when its pod is lost; and start it again."""
    command = [client_programs() / "pg_ctl", "restart", "-m", "immediate", "-w", "-t", "120", "-D", data]
    subprocess.run([*command, "-l", data / "log"], user=data.stat().st_uid, check=True, capture_output=True, cwd="/")


def test_no_saved_word_is_lost_and_each_is_there_once(own: tuple[Made, Path]) -> None:
    """Guards words that were answered as saved and are gone, kept in a form and lost, or there twice.

    Each analyst writes notes, one after the other; where the desk says that one was not saved, the form that it has
    kept is sent again. Meanwhile the server crashes, and the desk is started anew.
    """
    desk, data = own
    morning(desk.engine)
    saved: list[str] = []
    refused: Counter[int] = Counter()
    over = threading.Event()

    def write(name: str) -> None:
        """Write notes until the restarts are over, and at least some."""
        number = 0
        while number < NOTES or not over.is_set():
            entity, note = f"I{1 + number % 8}", f"{name} {number}"
            page = ask(lambda entity=entity: desk.person(name).get(f"{PATH}/row?entity={entity}"), 200).text
            body: dict[str, str] = fields(page) | {"do": "noted", "entity": entity, "note": note}
            while True:
                answer = desk.person(name).post(f"{PATH}/feedback", data=body)
                if answer.status_code == 303:
                    break
                refused[answer.status_code] += 1
                assert answer.status_code == 503, answer.text
                assert "Nothing of this form was saved" in answer.text
                hidden = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', answer.text)
                body = {key: unescape(value) for key, value in hidden}
                assert body["note"] == note
                time.sleep(0.05)
            saved.append(note)
            number += 1

    def ask(question, status: int):
        deadline = time.monotonic() + 120
        while (answer := question()).status_code != status:
            refused[answer.status_code] += 1
            assert answer.status_code == 503
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return answer

    failed: list[BaseException] = []

    def work(name: str) -> None:
        try:
            write(name)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in ANALYSTS]
    for thread in threads:
        thread.start()
    try:
        for restart in range(1, RESTARTS + 1):
            before = len(saved)
            deadline = time.monotonic() + 60
            while len(saved) < before + 2 and not failed and time.monotonic() < deadline:
                time.sleep(0.02)
            acknowledged = list(saved)
            crash(data)
            desk.restart()
            kept = {line.note for line in desk.lines()}
            assert set(acknowledged) <= kept, f"lost in restart {restart}"
    finally:
        over.set()
        for thread in threads:
            thread.join(120)
    assert not failed, failed
    assert refused[503], "nobody worked while the server was away, so this has shown nothing"
    notes = Counter(line.note for line in desk.lines())
    assert set(notes) == set(saved)
    assert len(saved) >= NOTES * len(ANALYSTS)
    assert set(notes.values()) == {1}
