"""Which code is running: what a prediction and a model say of where they come from."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ml_assets.spec import UseCase

UNKNOWN = "unknown"


def code_version(configured: str = "") -> str:
    """Return the configured version, or else the git commit of the checkout, with `-dirty` if files differ from it.

    An image has no git: it is built with `ML_ASSETS_CODE_VERSION`. Without either the version is `unknown`.
    """
    return configured or _git_commit(Path(__file__).parent) or UNKNOWN


def code_with(usecase: UseCase, configured: str = "") -> str:
    """Return the version of the code, and that of a use case's folder where the former does not tell it.

    A folder of another repository adds its commit. One that is not committed adds that it is modified, and a digest of
    its files: `git describe` says nothing of files that git does not know.
    """
    code = code_version(configured)
    if configured or code == UNKNOWN:
        return code
    changed, here, there = (
        _git(usecase.folder, "status", "--porcelain", "--untracked-files=all", "--", "."),
        _git(Path(__file__).parent, "rev-parse", "--show-toplevel"),
        _git(usecase.folder, "rev-parse", "--show-toplevel"),
    )
    ignored = _git(usecase.folder, "check-ignore", "usecase.py")
    if there and changed == "" and not ignored:
        return code if here == there else f"{code}, {usecase.name} {_git_commit(usecase.folder)}"
    return f"{code}, {usecase.name} modified, files {digest_of(usecase.folder)}"


def digest_of(folder: Path, pattern: str = "*") -> str:
    """Return twelve hex digits of the names and contents of all files of a folder whose names match a pattern."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob(pattern)):
        if file.is_file() and "__pycache__" not in file.parts:
            content = file.read_bytes()
            digest.update(f"{file.relative_to(folder).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]


def _git_commit(folder: Path) -> str:
    return _git(folder, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")


def _git(folder: Path, *arguments: str) -> str:
    """Return what git says of a folder; nothing if there is no git, or it says no."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    return asked.stdout.strip()
