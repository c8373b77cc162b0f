"""Errors that a person can act on, and that nothing else is raised by the project in their place."""

import ast
import pickle
from pathlib import Path

import pytest

import ml_assets
from ml_assets.errors import ActionableError, InputError, NotFoundError, StateError

PACKAGE = Path(ml_assets.__file__).parent
BARE = {"Exception", "LookupError", "RuntimeError", "ValueError"}


@pytest.mark.parametrize(
    ("kind", "also"), [(InputError, ValueError), (NotFoundError, LookupError), (StateError, RuntimeError)]
)
def test_an_error_says_where_what_and_what_to_do(kind, also):
    error = kind("has no header", where="prices.csv", to_do="add one")
    assert str(error) == "prices.csv: has no header; add one"
    assert (error.what, error.where, error.to_do) == ("has no header", "prices.csv", "add one")
    assert isinstance(error, ActionableError)
    assert isinstance(error, also)
    assert str(kind("it is gone")) == "it is gone"


def test_an_error_crosses_processes_whole():
    """Guards errors of a pool of processes, which would lose their text or put the place before it twice."""
    again = pickle.loads(pickle.dumps(InputError("has no header", where="prices.csv", to_do="add one")))
    assert str(again) == "prices.csv: has no header; add one"
    assert again.where == "prices.csv"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_raises_an_error_that_looks_like_a_bug(path):
    """Guards messages for people that the command line would show as a traceback: raise `ml_assets.errors`' instead."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Raise) and node.exc is not None:
            raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            assert not (isinstance(raised, ast.Name) and raised.id in BARE), f"{path}:{node.lineno}"
