"""Which code is running: what a prediction and a model say of where they come from."""

import subprocess
from pathlib import Path

UNKNOWN = "unknown"


def code_version(configured: str = "") -> str:
    """Return the configured version, or else the git commit of the checkout, with `-dirty` if files differ from it.

    An image has no git: it is built with `ML_ASSETS_CODE_VERSION`. Without either the version is `unknown`.
    """
    return configured or _git_commit(Path(__file__).parent) or UNKNOWN


def _git_commit(folder: Path) -> str:
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    return asked.stdout.strip()
