"""Disks without room: a small one that can be filled, and a limit on the files of one process."""

import contextlib
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

_SIZE = 24 * 1024 * 1024


class FullDisk:
    """A small disk at `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Leave no byte free."""
        with self._filler.open("ab", buffering=0) as filler, contextlib.suppress(OSError):
            for size in (1 << 16, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while True:
                        filler.write(b"x" * size)

    def free(self) -> None:
        """Make room again."""
        self._filler.unlink(missing_ok=True)


class NoDiskError(RuntimeError):
    """This process may not mount a disk: it is not root, or confined."""


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[FullDisk]:
    """Mount a disk of 24 MB in memory for the length of a block.

    Raises:
        NoDiskError: mounting is not allowed here.
    """
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", str(folder)]
    try:
        subprocess.run(command, capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise NoDiskError(f"a small disk cannot be mounted: {error}") from error
    except subprocess.CalledProcessError as error:
        raise NoDiskError(f"a small disk cannot be mounted: {error.stderr.strip()}") from error
    try:
        yield FullDisk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def without_room(pid: int, size: int) -> None:
    """Limit the size in bytes of each file that a process writes; writing more fails as on a full disk."""
    with contextlib.suppress(ProcessLookupError):
        hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


def unlimited(pid: int) -> None:
    """Lift the limit of `without_room`."""
    with contextlib.suppress(ProcessLookupError):
        hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
