"""The identity of a saved model: the SHA-256 of each of its files, and one hash over them all."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from ml_assets.errors import StateError

# Tags of an MLflow run and of a registered version.
MODEL_HASH = "model_hash"
MODEL_FILES = "model_files"


class ModelChangedError(StateError):
    """The files of a model are not those that were registered: somebody has changed, removed or added one."""


def file_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a model's folder, by its path in it."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def model_hash(files: Mapping[str, str]) -> str:
    """Return one SHA-256 over names and hashes of all files of a model."""
    listed = "".join(f"{digest}  {name}\n" for name, digest in sorted(files.items()))
    return hashlib.sha256(listed.encode()).hexdigest()


def hash_tags(files: Mapping[str, str]) -> dict[str, str]:
    """Return the hashes as tags, by which a person sees which file has changed."""
    return {MODEL_HASH: model_hash(files), MODEL_FILES: json.dumps(dict(files), sort_keys=True)}


def changed_files(files: Mapping[str, str], tags: Mapping[str, str]) -> str:
    """Return the names of the files that differ from what the tags say, for a message."""
    before = json.loads(tags.get(MODEL_FILES, "{}"))
    names = sorted(name for name in {*files, *before} if files.get(name) != before.get(name))
    return ", ".join(names) if before and names else "its files"
