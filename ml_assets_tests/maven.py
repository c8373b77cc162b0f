"""Jars of Maven Central, fetched once into the user's cache."""

import os
import shutil
import subprocess
from pathlib import Path


def fetch_jars(what: str, pom: Path, folder: Path, *options: str) -> Path:
    """Return the folder, which holds the jars that a pom needs at run time; fetched if it is not there.

    Raises:
        RuntimeError: Maven fails; with what it said.
    """
    if folder.is_dir():
        return folder
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    command = [
        "mvn", "--quiet", "--batch-mode", "--file", str(pom), "dependency:copy-dependencies",
        f"-DoutputDirectory={partial}", "-DincludeScope=runtime", *options,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        shutil.rmtree(partial, ignore_errors=True)
        raise RuntimeError(f"Maven could not fetch {what}: {done.stdout[-3000:]}")
    try:
        partial.rename(folder)
    except OSError:  # another process was faster
        shutil.rmtree(partial)
    return folder
