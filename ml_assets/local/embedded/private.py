"""The home folder belongs to the user who created it: nobody else on the machine may read it."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from ml_assets.errors import InputError

# Characters without a special meaning in a shell, a URL and a list of paths.
_PLAIN = re.compile(r"[\w./+@,=~-]*")


def make_private(home: Path, group: int | None = None) -> Path:
    """Return the home folder as an absolute path: made if missing, and closed to all others on this machine.

    `group` is the one that may pass through it: that of the user as whom the embedded PostgreSQL runs.

    Raises:
        ValueError: the path has characters that servers or libraries misread, or all users write to the folder.
        PermissionError: the folder is another user's.
    """
    home = home.expanduser().resolve()
    if not _PLAIN.fullmatch(str(home)):
        wrong = sorted(set(re.sub(_PLAIN, "", str(home))))
        raise InputError(
            f"the home folder cannot be {str(home)!r}: servers and libraries misread {' '.join(map(repr, wrong))} "
            "in it; set ML_ASSETS_HOME to a path without"
        )
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = home.stat()
    if found.st_mode & stat.S_ISVTX:
        raise InputError(f"{home} is shared by all users of this machine; set ML_ASSETS_HOME to a folder of your own")
    if found.st_uid != os.geteuid():
        if os.geteuid():
            raise PermissionError(f"{home} belongs to another user; set ML_ASSETS_HOME to a folder of your own")
        return home  # root, in somebody's folder: it is not root's to close
    if group is not None and found.st_gid != group:
        os.chown(home, -1, group)
    passing = 0o010 if group is not None or (found.st_mode & 0o077) == 0o010 else 0
    if stat.S_IMODE(found.st_mode) != 0o700 | passing:
        home.chmod(0o700 | passing)
    return home
