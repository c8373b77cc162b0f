"""The commands that README and docs show are commands, with arguments and options that they take."""

import re
import shlex
from pathlib import Path

import msgspec
import pytest
import typer

from ml_assets.cli.main import app
from ml_assets.local.simulation.world import CALENDAR, MarketConfig
from ml_assets.serving.bodies import ScoreRequest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "k8s" / "README.md"]
_SPAN = re.compile(r"`(ml-assets [^`]+)`", re.DOTALL)
_LINE = re.compile(r"^(?: {4}|\$ )?(?:ML_ASSETS_\w+=\S+ )*(ml-assets .+?)(?: {2,}.*| #.*)?$", re.MULTILINE)
# What the CLI's parser raises; typer brings a parser of its own.
UsageError = typer.BadParameter.__mro__[1]
_COMMAND = typer.main.get_command(app)
README = (ROOT / "README.md").read_text(encoding="utf-8")
CURL = re.compile(r"^curl http://localhost:8000(/\S+) --json '([^']+)'$", re.MULTILINE)
# What stands for a value in prose.
_VALUES = {"date": "2026-01-05", "first": "2026-01-05", "last": "2026-01-06", "time": "2026-01-05T07:00:00",
           "n": "3", "version": "3", "days": "3", "partition": "3"}  # fmt: skip
_VARIABLES = {"DAY": "2026-01-05", "FIRST": "2026-01-05", "LAST": "2026-01-06", "PORT": "3000"}


def commands(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8")
    found = [" ".join(one.split()) for one in _SPAN.findall(text)] + _LINE.findall(text)
    return list(dict.fromkeys(found))


SHOWN = [(page.name, command) for page in PAGES for command in commands(page)]


def test_there_are_commands_to_look_at():
    assert len(SHOWN) > 30


@pytest.mark.parametrize(("page", "command"), SHOWN, ids=[f"{page}: {command}" for page, command in SHOWN])
def test_a_command_that_a_page_shows_is_one(page, command):
    """Guards: docs/models.md showed backtest with arguments that it does not take."""
    problem = said_of(command)
    assert not problem, f"{page}: {command}: {problem}"


def said_of(command: str) -> str:
    """What is wrong with a command, as the CLI's own parser says; a verb alone, as prose names it, lacks arguments."""
    for shown, value in _VALUES.items():
        command = command.replace(f"<{shown}>", value)
    command = re.sub(r"\$(\w+)", lambda one: _VARIABLES.get(one[1], one[1]), command)
    command = re.sub(r"<([^>]+)>", lambda one: re.sub(r"\W", "_", one[1]), command)
    optional = re.sub(r"[\[\]]", "", command)
    _, *words = shlex.split(optional.partition("|")[0].partition(" &")[0].removesuffix(" ..."))
    known = _COMMAND.commands
    if not words or words[0].startswith("-"):
        return ""
    if words[0] not in known:
        return f"there is no command {words[0]}"
    if len(words) == 1:
        return ""
    context = _COMMAND.make_context("ml-assets", [], resilient_parsing=True)
    try:
        known[words[0]].make_context(words[0], words[1:], parent=context)
    except UsageError as error:
        # Prose may name an option without all that a call needs.
        return "" if error.format_message().startswith("Missing argument") else error.format_message()
    return ""


def test_the_request_that_readme_shows_is_of_the_demo_s_last_day():
    """`ml_assets_tests/local/test_demo.py` sends it to the service, with an instruction of its smaller market."""
    path, body = CURL.search(README).groups()
    (entity,) = msgspec.json.decode(body, type=ScoreRequest).entity_ids
    day, _, number = entity.partition("-")
    demo = MarketConfig()
    last = CALENDAR.add(demo.start, demo.days - 1)
    assert path == "/v1/settlement_fails/score"
    assert (day, int(number) // demo.instructions_per_day) == (f"{last:%Y%m%d}", demo.days - 1)


@pytest.mark.parametrize(
    "command", ["ml-assets backtest settlement_fails --no-such", "ml-assets nothing", "ml-assets ingest --from soon"]
)
def test_what_is_none_is_found(command):
    assert said_of(command)
