"""`ml-assets alerts` on a real database: what a person types, and what is said when it cannot be."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ml_assets.database.migrate import migrate
from ml_assets.database.predictions import upsert_predictions
from ml_assets.local.embedded.environment import database_url
from ml_assets.local.embedded.postgres import stop_server
from ml_assets.settings import Settings
from ml_assets_tests.database.factories import prediction, predictions

RULE = "cns_fails/score_shift"
# All commands in one process: starting one takes longer than a command.
_PROGRAM = """
import json, sys
from typer.testing import CliRunner
from ml_assets.cli.main import app
from ml_assets.errors import ActionableError
for command in json.loads(sys.argv[1]):
    done = CliRunner().invoke(app, ["alerts", *command.split()])
    if done.exception and not isinstance(done.exception, (ActionableError, SystemExit)):
        raise done.exception
    said = f"error: {done.exception}" if isinstance(done.exception, ActionableError) else done.output
    print(json.dumps(" ".join(said.split())))
"""


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A home with a server of its own, in which scores have shifted today."""
    made = Path(tempfile.mkdtemp(prefix="ml_assets_"))
    url = database_url(Settings(home=made))
    migrate(url)
    start = datetime.now(UTC).replace(hour=7, minute=0, second=0, microsecond=0) - timedelta(days=12)
    rows = []
    for day in range(11):
        at = start + timedelta(days=day)
        when = {"decision_time": at, "decision_date": at.date(), "outcome_date": at.date() + timedelta(days=1)}
        rows.append(prediction("A", 0.5 if day == 10 else 0.1 + day / 1000, use_case="cns_fails", **when))
    upsert_predictions(url, predictions(*rows))
    yield made
    stop_server(made)
    shutil.rmtree(made, ignore_errors=True)


def said(home: Path, *commands: str) -> list[str]:
    environment = {
        **os.environ, "ML_ASSETS_HOME": str(home), "ML_ASSETS_POSTGRES_URL": "", "ML_ASSETS_ACTOR": "Ann",
        "COLUMNS": "250",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, json.dumps(commands)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_person_looks_acknowledges_and_silences(home: Path) -> None:
    before, ran, opened, other, seen, again, ended, hushed, listed, shown = said(
        home, "list", "run", "list", f"ack {RULE} --reason x --key slot=noon", f"ack {RULE} --reason seen",
        f"ack {RULE} --reason again", f"silence {RULE} --hours 0 --reason x",
        f"silence {RULE} --hours 8 --reason release", "list", f"show {RULE}",
    )  # fmt: skip
    assert "no rule was ever evaluated" in before
    assert "open alerts: 1, rules in error: 0" in ran
    assert "slot=morning" in opened
    assert other == f"error: no alert of {RULE} is open with the key 'slot=noon'; open are: slot=morning"
    assert seen == f"{RULE}: 1 acknowledged; not told again until closed"
    assert again == f"error: {RULE}: ann has acknowledged it already"
    assert ended == f"{RULE}: no longer silenced"
    assert hushed.startswith(f"{RULE}: silenced until")
    assert f"UTC: {RULE}" in listed
    assert "│ ann │" in listed
    for what in ("opened", "acknowledged", "silenced", "docs/runbooks.md#scores-have-shifted"):
        assert what in shown


def test_what_cannot_be_is_said_with_what_to_do(home: Path) -> None:
    unknown, tested, played, too_long, of_now = said(
        home, "show nothing", f"test {RULE}", f"backtest {RULE} --from 2026-01-05 --to 2026-01-09",
        f"backtest {RULE} --from 2026-01-05 --to 2025-01-09",
        "backtest cns_fails/lander_behind --from 2026-01-05 --to 2026-01-09",
    )  # fmt: skip
    assert unknown.startswith("error: there is no rule 'nothing'; there are platform/answers_dropped")
    assert "its 3 cases hold as of now: 1 rows slot morning" in tested
    assert "5 evaluations: 0 alerts opened" in played
    assert too_long.endswith("give 1 to 400")
    assert "which is known of now alone; `ml-assets alerts test`" in of_now
