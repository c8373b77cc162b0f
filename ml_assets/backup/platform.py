"""Make a backup, list backups, restore one.

<where>/<name>/backup.json      what it holds; written last: without it a backup was not finished
<where>/<name>/postgres/        a dump a database
<where>/<name>/lake/            the log of each table, up to the version that the backup is of
<where>/<name>/artifacts/       MLflow's, and reference/ the dropped files
<where>/files/                  the data files of the lake. They never change, so all backups share them
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

import msgspec
import pyarrow as pa

from ml_assets.backup.objects import Copy, Folder, copy_all
from ml_assets.backup.postgres import dump, is_empty, load, move_artifacts, present, snapshots
from ml_assets.errors import NotFoundError, StateError
from ml_assets.lake import Lake

_MANIFEST = "backup.json"
_LOG = re.compile(r"(?P<table>.+)/_delta_log/(?P<version>\d{20})\.[^/]+")


@dataclass(frozen=True)
class Places:
    """Where the project stores its data.

    `databases` are SQLAlchemy URLs by name, of which some may not exist; `artifacts` and `reference` are folders or
    `s3://` prefixes; `programs` is the folder of pg_dump and pg_restore, if it is not on the PATH.
    """

    databases: Mapping[str, str]
    lake: Lake
    artifacts: str
    reference: str
    programs: Path | None = None


class Dump(msgspec.Struct, frozen=True):
    """A dump of a database: size in bytes, SHA-256."""

    size: int
    sha256: str


class Backup(msgspec.Struct, frozen=True):
    """What a backup holds. `objects` are sizes by path below its folder, `files` by path in the lake."""

    name: str
    code: str
    artifacts: str
    databases: dict[str, Dump]
    tables: dict[str, int]
    objects: dict[str, int]
    files: dict[str, int]

    def missing(self, there: Mapping[str, int]) -> list[str]:
        """Return what it holds and is not there, or not in its size; `there` are sizes by path below `where`."""
        held = {f"{self.name}/{path}": size for path, size in self.objects.items()}
        held |= {f"files/{path}": size for path, size in self.files.items()}
        held |= {f"{self.name}/{_dump_path(name)}": dump.size for name, dump in self.databases.items()}
        return sorted(path for path, size in held.items() if there.get(path) != size)


def backup(places: Places, where: str, use_cases: Iterable[str], *, code: str = "", keep: int = 0) -> Backup:
    """Make a backup below `where`, a folder or an `s3://` prefix, and return what it holds. Nothing has to stop.

    `use_cases` are those whose champions must not change between two databases; `code` is noted. `keep`, if not 0,
    is how many of the newest backups stay; older ones are removed. Make one backup at a time.

    Raises:
        RuntimeError: a database cannot be dumped, or a file of a table was lost meanwhile.
    """
    target = Folder(where)
    name = f"{datetime.now(UTC):%Y-%m-%dT%H%M%S.%fZ}"
    own = Folder(f"{where.rstrip('/')}/{name}")
    databases = {}
    with snapshots({each: places.databases[each] for each in present(places.databases)}, use_cases) as moment:
        for database, snapshot in moment.items():
            with own.open(_dump_path(database), "wb") as file:
                databases[database] = Dump(*dump(places.databases[database], snapshot, file, places.programs))
    # After the databases, so that what they refer to is copied too.
    sources = {"artifacts": Folder(places.artifacts), "reference": Folder(places.reference)}
    objects = {f"{kind}/{path}": size for kind, source in sources.items() for path, size in source.sizes().items()}
    copies = [Copy(sources[path.partition("/")[0]], path.partition("/")[2], own, path) for path in objects]
    lake = Folder(places.lake.root)
    tables, logs = _logs(lake.sizes())
    objects |= {f"lake/{path}": size for path, size in logs.items()}
    copies += [Copy(lake, path, own, f"lake/{path}") for path in logs]
    # Listed after the log: the files of a commit are there before it.
    files = {path: size for path, size in lake.sizes().items() if _table_of(path, tables)}
    there = target.sizes()
    copies += [Copy(lake, path, target, f"files/{path}") for path in files if there.get(f"files/{path}") != files[path]]
    for gone in copy_all(copies):  # by housekeeping: only old versions needed it
        files.pop(gone.path, None)
        objects.pop(gone.to, None)
    _require_files(places.lake, tables, files)
    made = Backup(name, code, places.artifacts.rstrip("/"), databases, tables, objects, files)
    if missing := made.missing(target.sizes()):
        raise StateError(f"the backup {name} lacks {missing[0]} and {len(missing) - 1} more; make it again")
    with own.open(_MANIFEST, "wb") as file:
        file.write(msgspec.json.encode(made))
    if keep:
        _remove_older(target, keep)
    return made


def backups(where: str) -> list[tuple[Backup, list[str]]]:
    """Return the backups below `where`, the newest first, each with its missing objects."""
    target = Folder(where)
    there = target.sizes()
    found = []
    for path in sorted((path for path in there if path.endswith(f"/{_MANIFEST}")), reverse=True):
        if path.count("/") == 1:
            with target.open(path, "rb") as file:
                made = msgspec.json.decode(file.read(), type=Backup)
            found.append((made, made.missing(there)))
    return found


def restore(places: Places, where: str, name: str = "") -> Backup:
    """Restore a backup, the newest if no name is given, into databases and folders that are empty; return it.

    The databases and the roles of their owners must exist.

    Raises:
        LookupError: there is no such backup.
        RuntimeError: the backup is not complete, a place is not empty, or a dump cannot be restored.
    """
    known = {made.name: (made, missing) for made, missing in backups(where)}
    if not known or (name and name not in known):
        raise NotFoundError(f"there is no backup {name} in {where}; there are {', '.join(known) or 'none'}")
    made, missing = known[name or next(iter(known))]
    if missing:
        raise StateError(f"the backup {made.name} is not complete: it lacks {', '.join(missing[:3])}")
    _require_empty(places, made)
    source, own = Folder(where), Folder(f"{where.rstrip('/')}/{made.name}")
    roots = {kind: Folder(root) for kind, root in _roots(places).items()}
    copies = [Copy(own, path, roots[path.partition("/")[0]], path.partition("/")[2]) for path in made.objects]
    copies += [Copy(source, f"files/{path}", roots["lake"], path) for path in made.files]
    if lost := copy_all(copies):
        raise StateError(f"{lost[0].path} was removed from {where} while it was restored")
    for database, dumped in made.databases.items():
        _load(own, database, dumped, places)
    if "mlflow" in made.databases:
        move_artifacts(places.databases["mlflow"], made.artifacts, places.artifacts.rstrip("/"))
    _require_files(places.lake, made.tables, roots["lake"].sizes())
    return made


def _roots(places: Places) -> dict[str, str]:
    return {"lake": places.lake.root, "artifacts": places.artifacts, "reference": places.reference}


def _logs(there: Mapping[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """Return the newest version of each table, and the sizes of its log's files.

    `_last_checkpoint`, which names the newest checkpoint, is left out: it may be ahead of the copy, and is created
    again.
    """
    logs = {path: size for path, size in there.items() if _LOG.fullmatch(path)}
    tables: dict[str, int] = {}
    for path in logs:
        if match := _LOG.fullmatch(path):
            tables[match["table"]] = max(int(match["version"]), tables.get(match["table"], 0))
    return tables, logs


def _table_of(path: str, tables: Mapping[str, int]) -> str | None:
    """Return the table of which a path is a data file, or None."""
    if "/_delta_log/" in path:
        return None
    parts = path.split("/")
    return next((table for end in range(1, len(parts)) if (table := "/".join(parts[:end])) in tables), None)


def _require_files(lake: Lake, tables: Mapping[str, int], there: Mapping[str, int]) -> None:
    """Do nothing if every file of the tables, at these versions, is there.

    Raises:
        RuntimeError: one is not.
    """
    for name, version in tables.items():
        table = lake.table(name, version)
        if table is None:
            raise StateError(f"the table {lake.uri(name)} has gone")
        for path in pa.table(table.get_add_actions(flatten=True))["path"].to_pylist():
            if f"{name}/{unquote(path)}" not in there:
                raise StateError(f"version {version} of {lake.uri(name)} lacks its file {path}")


def _require_empty(places: Places, made: Backup) -> None:
    for kind, root in _roots(places).items():
        if taken := Folder(root).sizes():
            raise StateError(f"{root} is not empty, it has {min(taken)}: a backup is restored into an empty {kind}")
    for database in made.databases:
        if database not in places.databases:
            raise StateError(f"nothing says where the database {database} is restored to")
        if not is_empty(places.databases[database]):
            raise StateError(
                f"the database {database} is not empty: a backup is restored into one that `createdb` has just made"
            )


def _load(own: Folder, database: str, dumped: Dump, places: Places) -> None:
    with tempfile.NamedTemporaryFile(suffix=".dump") as copied:
        with own.open(_dump_path(database), "rb") as file:
            content = file.read()
        if hashlib.sha256(content).hexdigest() != dumped.sha256:
            raise StateError(f"the dump of {database} is not the one that was written: its SHA-256 differs")
        copied.write(content)
        copied.flush()
        load(places.databases[database], Path(copied.name), places.programs)


def _dump_path(database: str) -> str:
    return f"postgres/{database}.dump"


def _remove_older(target: Folder, keep: int) -> None:
    """Remove all but the newest backups, unfinished ones among them, and the files that only they held."""
    kept = [made for made, _ in backups(target.root)[:keep]]
    names, files = {made.name for made in kept}, {path for made in kept for path in made.files}
    target.remove(
        path
        for path in target.sizes()
        if (path.removeprefix("files/") not in files if path.startswith("files/") else path.split("/")[0] not in names)
    )
