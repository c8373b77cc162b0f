"""Which code made something, and whether the folder of its use case was that code."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from ml_assets.code_version import code_version, code_with
from ml_assets.spec import UseCase
from ml_assets.usecases.cns_fails.usecase import USE_CASE


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, "-C", str(folder), *arguments], check=True, capture_output=True)


@pytest.fixture
def mine(tmp_path) -> UseCase:
    folder = tmp_path / "cases" / "mine"
    folder.mkdir(parents=True)
    (folder / "usecase.py").write_text("USE_CASE = 1\n")
    return replace(USE_CASE, name="mine", folder=folder)


def test_a_folder_that_is_not_committed_is_called_modified_with_a_digest_of_its_files(mine):
    """Guards: git knows nothing of a new folder, and provenance named a clean commit."""
    outside = code_with(mine)
    assert outside.startswith(f"{code_version()}, mine modified, files ")
    git(mine.folder.parent, "init")
    (mine.folder.parent / "README").write_text("x")
    git(mine.folder.parent, "add", "README")
    git(mine.folder.parent, "commit", "-m", "first")
    assert code_with(mine) == outside, "untracked is as good as no repository"
    (mine.folder / "label.sql").write_text("SELECT 1")
    assert code_with(mine) != outside, "other files, another digest"
    git(mine.folder.parent, "add", ".")
    git(mine.folder.parent, "commit", "-m", "second")
    committed = code_with(mine)
    assert committed.startswith(f"{code_version()}, mine ")
    assert "modified" not in committed
    (mine.folder / "label.sql").write_text("SELECT 2")
    assert "mine modified, files " in code_with(mine)
    (mine.folder.parent / ".gitignore").write_text("mine/usecase.py\n")
    git(mine.folder.parent, "rm", "--cached", "mine/usecase.py", "-q")
    git(mine.folder.parent, "add", ".")
    git(mine.folder.parent, "commit", "-m", "third")
    assert "mine modified, files " in code_with(mine), "what git ignores is in no commit"


def test_a_configured_version_is_taken_as_it_is(mine):
    assert code_with(mine, "v1.2") == "v1.2"
