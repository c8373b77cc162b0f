"""How the command line ends, for each kind of error."""

import sys

import psycopg
import pytest
from confluent_kafka import KafkaError, KafkaException
from deltalake.exceptions import CommitFailedError, DeltaError
from sqlalchemy.exc import OperationalError, ProgrammingError

from ml_assets.cli import main as command_line
from ml_assets.cli.foreseen import foreseen_names, is_foreseen
from ml_assets.database.promotions import LedgerError
from ml_assets.errors import InputError, NotFoundError, StateError
from ml_assets.registry import ModelChangedError

DENIED = psycopg.errors.InsufficientPrivilege("permission denied for table promotions")


@pytest.fixture
def ended(monkeypatch, capsys, tmp_path):
    """Run `main()` with a command that raises an error, and return exit code and what was said."""
    monkeypatch.setenv("ML_ASSETS_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")

    def end(error):
        def raising():
            raise error

        monkeypatch.setattr(command_line, "app", raising)
        with pytest.raises(SystemExit) as end:
            command_line.main()
        return end.value.code, capsys.readouterr().err

    return end


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (InputError("has no header", where="prices.csv", to_do="add one"), "prices.csv: has no header; add one"),
        (NotFoundError("there is no use case 'x'"), "there is no use case 'x'"),
        (StateError("the account does not balance"), "the account does not balance"),
        (LedgerError("use case a: the same person"), "use case a: the same person"),
        (ModelChangedError("the model differs"), "the model differs"),
        (FileNotFoundError(2, "No such file", "/nowhere"), "/nowhere"),
        (DeltaError("the log is not readable"), "the log is not readable"),
        (CommitFailedError("another writer was faster"), "another writer was faster"),
        (KafkaException(KafkaError(KafkaError._ALL_BROKERS_DOWN)), "broker connections are down"),
        (psycopg.OperationalError("connection refused"), "connection refused"),
        (OperationalError("SELECT 1", {}, psycopg.OperationalError("server closed")), "error: server closed"),
        (ProgrammingError("SELECT 1", {}, DENIED), "error: permission denied for table promotions"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_person_can_act_on_is_said_on_one_line(ended, error, says):
    code, said = ended(error)
    assert code == 1
    assert said.startswith("error: ")
    assert says in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "bug",
    [
        LookupError("nobody wrote this for people"),
        KeyError("column"),
        IndexError("list index out of range"),
        ValueError("operands could not be broadcast together"),
        RuntimeError("dictionary changed size during iteration"),
        TypeError("NoneType"),
        ProgrammingError("SELEC 1", {}, psycopg.errors.SyntaxError("syntax error at or near SELEC")),
    ],
    ids=lambda bug: type(bug).__name__,
)
def test_a_bug_shows_where_it_comes_from(monkeypatch, bug):
    """Guards: a bug was shown as a person's mistake, `error: 'column'`, without a line to look at."""

    def raising():
        raise bug

    monkeypatch.setattr(command_line, "app", raising)
    with pytest.raises(type(bug)) as raised:
        command_line.main()
    assert raised.value is bug
    assert not is_foreseen(bug)


def test_a_traceback_is_shown_if_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("ML_ASSETS_HOME", str(tmp_path))
    monkeypatch.setenv("ML_ASSETS_TRACEBACK", "true")

    def raising():
        raise StateError("known")

    monkeypatch.setattr(command_line, "app", raising)
    with pytest.raises(StateError):
        command_line.main()


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["nonsense"], 2), (["score", "cns_fails"], 2)])
def test_exit_codes_of_the_parser(monkeypatch, arguments, code):
    monkeypatch.setattr(sys, "argv", ["ml-assets", *arguments])
    with pytest.raises(SystemExit) as end:
        command_line.main()
    assert end.value.code == code


def test_errors_of_a_step_are_known_by_their_names():
    """Guards a step's bug that is told without the lines it comes from: Dagster keeps of its error only the name."""
    names = foreseen_names()
    assert {"InputError", "LedgerError", "ModelChangedError", "FileNotFoundError", "CommitFailedError"} <= names
    assert not {"ValueError", "LookupError", "KeyError", "RuntimeError"} & names
