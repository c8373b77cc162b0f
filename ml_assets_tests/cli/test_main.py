"""The command line as a person meets it: errors that say what to do, on one line."""

import os
import subprocess
import sys
from pathlib import Path
from secrets import token_urlsafe

import pytest
from sqlalchemy import URL
from typer.main import get_command

from ml_assets.cli.main import app, main
from ml_assets.code_version import code_version
from ml_assets.local.rehearsal.account import Goal


def run(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    command = [str(Path(sys.executable).with_name("ml-assets")), *arguments]
    environment = {**os.environ, "ML_ASSETS_HOME": str(home), "COLUMNS": "200", "NO_COLOR": "1", **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["score", "nobody", "--date", "2026-01-05"],
            "there is no use case 'nobody'; there are cns_fails",
        ),
        (["score", "cns_fails", "--date", "2019-01-07"], "it has the weekdays from 2020-06-01"),
        (["replay-sec", "/nowhere"], "/nowhere is not a folder; give the folder with the SEC's"),
        (["rehearsal", "--data", "/nowhere"], "/nowhere is not a folder; give the folder with the SEC's"),
        (["demo", "--use-case", "cns_fails"], "cns_fails needs the SEC's files: --data"),
        (["demo", "--use-case", "nobody"], "there is no demo of 'nobody'"),
        (["canary", "cns_fails"], 'give either --share 0.1, and --version if you like, or --end --reason "the reason"'),
        (["canary", "cns_fails", "--end"], "or --end --reason"),
        (["canary", "cns_fails", "--share", "0.1", "--reason", "why"], "or --end --reason"),
        (["canary", "cns_fails", "--share", "0.1", "--end", "--reason", "why"], "or --end --reason"),
    ],
)
def test_errors_say_what_to_do(tmp_path, arguments, says, monkeypatch, capsys):
    monkeypatch.setenv("ML_ASSETS_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["ml-assets", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert says in said
    assert "Traceback" not in said


def test_a_rehearsal_that_misses_a_goal_names_it_and_ends_with_1(tmp_path, monkeypatch, capsys):
    """Guards a year whose goals nobody reads: the year itself takes too long for a test."""
    goals = [Goal("flagged", "within 3", "after 2", True), Goal("the saving", "at least 85 %", "80 %", False)]
    monkeypatch.setenv("ML_ASSETS_HOME", str(tmp_path))
    for missed, code in ((goals, 1), (goals[:1], 0)):
        monkeypatch.setattr("ml_assets.local.rehearsal.run.rehearse", lambda *_, missed=missed: missed)
        monkeypatch.setattr(sys, "argv", ["ml-assets", "rehearsal"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert (ended.value.code or 0) == code
    assert "missed: the saving: 80 % (asked: at least 85 %)" in capsys.readouterr().out


def test_a_server_that_does_not_answer_is_an_error_on_one_line(tmp_path, monkeypatch, capsys):
    """Guards a traceback of SQLAlchemy in which nobody finds that a password or an address is wrong."""
    monkeypatch.setenv("ML_ASSETS_HOME", str(tmp_path))
    word = token_urlsafe(12)
    url = URL.create("postgresql", "scorer", word, "127.0.0.1", 1)
    monkeypatch.setenv("ML_ASSETS_POSTGRES_URL", url.render_as_string(hide_password=False))
    monkeypatch.setattr(sys, "argv", ["ml-assets", "work-list", "cns_fails"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("error: connection failed")
    assert word not in said


def test_an_error_of_the_installed_program_is_its_last_line(tmp_path):
    result = run(tmp_path, "replay-sec", "/nowhere")
    assert result.returncode == 1
    assert result.stderr.startswith("error: /nowhere is not a folder")


def test_help_lists_the_commands(tmp_path):
    said = run(tmp_path, "--help").stdout
    for command in (
        "demo", "simulate", "replay-sec", "land", "ingest", "retrain", "score", "promote", "approve", "rollback",
        "history", "status", "ui",
    ):  # fmt: skip
        assert command in said


def test_every_default_is_one_that_its_option_takes():
    """Guards `rollback` and `work-list`, which could not be called without an option that they do not need."""
    commands, limited = [get_command(app)], 0
    for command in commands:
        commands += getattr(command, "commands", {}).values()
        for option in command.params:
            least, default = getattr(option, "min", None), option.default
            if least is not None and default is not None:
                assert default >= least, f"{command.name} {option.name}"
                limited += 1
    assert limited > 5


@pytest.fixture(scope="module")
def first_status(postgres_home):
    """What the first command on a home says; it makes the tables."""
    return run(postgres_home, "status").stdout


def test_status_of_an_empty_platform(first_status):
    assert "settlement_fails" in first_status
    assert "cns_fails" in first_status


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--help"], "Usage: ml-assets"),
        (["history", "settlement_fails"], "promotions of settlement_fails"),
        (["work-list", "settlement_fails"], "settlement_fails"),
    ],
)
@pytest.mark.usefixtures("first_status")
def test_a_command_that_shows_something_loads_only_what_it_needs(postgres_home, arguments, says):
    """Guards the time that a person waits for a line: seconds, once the packages that train or land are imported."""
    done = run(postgres_home, *arguments, PYTHONPROFILEIMPORTTIME="1")
    assert says in done.stdout + done.stderr
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "ml_assets.cli.main" in loaded
    heavy = {"alembic", "confluent_kafka", "dagster", "duckdb", "holidays.countries", "mlflow", "pandas", "sklearn"}
    assert not heavy & loaded


def test_the_code_version_is_that_of_the_settings_or_of_git():
    assert code_version("v1.2") == "v1.2"
    assert len(code_version()) >= 7


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--days", "30"], "30 days are too few to train on"),
        (["--days", "25"], "--days 35 or more"),
        (["--days", "40", "--instructions", "300"], "300 instructions a day are too few for the gate"),
    ],
)
def test_a_demo_that_could_not_end_well_does_not_begin(tmp_path, arguments, says, monkeypatch, capsys):
    """Guards minutes of work before an error that was known at the start; what is there stays, even with --fresh."""
    kept = tmp_path / "home" / "kept"
    kept.parent.mkdir()
    kept.touch()
    monkeypatch.setenv("ML_ASSETS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setattr(sys, "argv", ["ml-assets", "demo", "--fresh", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert says in capsys.readouterr().err
    assert kept.exists()
