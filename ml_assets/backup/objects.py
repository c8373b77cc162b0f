"""Copies of objects: from a folder or an `s3://` prefix to another, by the store itself where both are on S3."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any, NamedTuple

import fsspec

_AT_A_TIME = 16


class Copy(NamedTuple):
    """A copy to be made: paths are relative to the two folders."""

    source: Folder
    path: str
    target: Folder
    to: str


@dataclass(frozen=True)
class Folder:
    """A folder or an `s3://` prefix, which need not exist yet."""

    root: str

    @cached_property
    def _store(self) -> tuple[Any, str]:
        store, path = fsspec.core.url_to_fs(self.root)
        return store, path.rstrip("/")

    def sizes(self) -> dict[str, int]:
        """Return the size of each object below it, in bytes, by its path relative to it."""
        store, path = self._store
        found = store.find(path, detail=True)
        return {name[len(path) + 1 :]: int(about["size"]) for name, about in found.items() if name != path}

    def open(self, path: str, mode: str) -> IO[bytes]:
        """Open an object; its folders are made if it is written."""
        store, root = self._store
        if "w" in mode:
            store.makedirs(f"{root}/{path}".rpartition("/")[0], exist_ok=True)
        return store.open(f"{root}/{path}", mode)  # type: ignore[no-any-return]

    def remove(self, paths: Iterable[str]) -> None:
        """Remove objects."""
        store, root = self._store
        if gone := [f"{root}/{path}" for path in paths]:
            store.rm(gone)


def copy_all(copies: Iterable[Copy]) -> list[Copy]:
    """Make the copies, many at a time, and return those whose source was not there any more."""
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        return [copy for copy, was_there in pool.map(lambda copy: (copy, _made(copy)), copies) if not was_there]


def _made(copy: Copy) -> bool:
    (source, source_root), (target, target_root) = copy.source._store, copy.target._store
    try:
        if source is target and not isinstance(source, fsspec.implementations.local.LocalFileSystem):
            source.cp_file(f"{source_root}/{copy.path}", f"{target_root}/{copy.to}")
        else:
            with copy.source.open(copy.path, "rb") as read, copy.target.open(copy.to, "wb") as write:
                shutil.copyfileobj(read, write, 1 << 20)
    except FileNotFoundError:
        return False
    return True
