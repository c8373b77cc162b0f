"""SQL files of reports and alerts that every use case has: found by being there."""

from collections.abc import Mapping
from importlib import resources

from ml_assets.errors import InputError


def shared_sql(*folder: str) -> dict[str, str]:
    """Return the SQL of the files of a folder below `database/sql/`, by name."""
    found = resources.files("ml_assets.database").joinpath("sql", *folder)
    files = sorted((file for file in found.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return {file.name.removesuffix(".sql"): file.read_text(encoding="utf-8") for file in files}


def shared_and_own(
    use_case: str, what: str, folder: str, own: Mapping[str, str], *below: str
) -> dict[str, tuple[str, str]]:
    """Return by name the file and the SQL of what all use cases have, and of what one has in its own `folder`.

    Shared files are in `folder` below `database/sql/`, or in `below` of it.

    Raises:
        InputError: two files have one name.
    """
    shared = shared_sql(folder, *below)
    if twice := sorted(shared.keys() & own.keys()):
        raise InputError(
            f"every use case has a {what} {twice[0]}", where=f"{use_case}/{folder}/{twice[0]}.sql",
            to_do="give it another name",
        )  # fmt: skip
    files = {name: ("/".join(("sql", folder, *below, f"{name}.sql")), sql) for name, sql in shared.items()}
    files |= {name: (f"{use_case}/{folder}/{name}.sql", sql) for name, sql in own.items()}
    return dict(sorted(files.items()))
