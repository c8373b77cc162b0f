"""The catalogue of features, made from the declarations in the SQL files and in the use case.

Each `features/*.sql` begins with lines `-- @entity: ...`, `-- @as_of: ...` and `-- @owner: ...`, which hold for all
features of that file; those left out are the use case's. Which file gives a feature is asked of the SQL itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from ml_assets.errors import InputError
from ml_assets.features.as_of import AsOfDatabase
from ml_assets.spec import UseCase
from ml_assets.sql_head import tags

TAGS = ("entity", "as_of", "owner")
_AS_OF = "what is known at the decision"


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One feature: where it is defined, which entity it describes, as of when, and its owner."""

    name: str
    file: str
    entity: str
    as_of: str
    owner: str
    description: str
    unit: str
    kind: str
    cause: str


def catalogue(usecase: UseCase) -> tuple[CatalogueEntry, ...]:
    """Return one entry per feature, in the order of declaration.

    Raises:
        ValueError: a file has a tag that is not one of `TAGS`, or its SQL does not give the declared features.
    """
    declared = {stem: declarations(usecase, stem, sql) for stem, sql in usecase.feature_sql.items()}
    sources = _sources(usecase)
    return tuple(
        CatalogueEntry(
            name=feature.name,
            file=f"{sources[feature.name]}.sql",
            entity=declared[sources[feature.name]]["entity"],
            as_of=declared[sources[feature.name]]["as_of"],
            owner=declared[sources[feature.name]]["owner"],
            description=feature.description,
            unit=feature.unit,
            kind=feature.kind,
            cause=feature.cause,
        )
        for feature in usecase.features
    )


def declarations(usecase: UseCase, stem: str, sql: str) -> dict[str, str]:
    """Return entity, as-of semantics and owner of the features of a file.

    Raises:
        ValueError: the file has another tag.
    """
    said = dict(tags(sql))
    if unknown := sorted(set(said) - set(TAGS)):
        raise InputError(
            f"use case {usecase.name}: {stem}.sql has the tag @{unknown[0]}; the tags are @{', @'.join(TAGS)}"
        )
    return {"entity": usecase.entity, "as_of": _AS_OF, "owner": usecase.owner, **said}


def catalogue_page(usecases: Iterable[UseCase]) -> str:
    """Return the page of all use cases' features, as Markdown."""
    lines = [
        "# Features",
        "",
        "Written by `ml-assets features`, from SQL and specs. Training set, batch and service use the same SQL.",
    ]
    for usecase in usecases:
        slots = ", ".join(f"{slot.name} {slot.at:%H:%M} UTC" for slot in usecase.slots)
        lines += ["", f"## {usecase.title} (`{usecase.name}`)", "", f"Decided at {slots}."]
        entries = catalogue(usecase)
        for file in dict.fromkeys(entry.file for entry in entries):
            mine = [entry for entry in entries if entry.file == file]
            lines += [
                "",
                f"### `features/{file}`",
                "",
                f"- entity: {mine[0].entity}",
                f"- as of: {mine[0].as_of}",
                f"- owner: {mine[0].owner}",
                "",
                "| feature | what | unit | kind | cause |",
                "| --- | --- | --- | --- | --- |",
                *(f"| `{e.name}` | {e.description} | {e.unit or '-'} | {e.kind} | {e.cause or '-'} |" for e in mine),
            ]
    return "\n".join(lines) + "\n"


def _sources(usecase: UseCase) -> dict[str, str]:
    """Return which SQL file gives each feature: the SQL is run on an empty history and asked for its columns."""
    day = usecase.first_partition
    while not (decisions := usecase.decision_times(day)):
        day += timedelta(days=1)
    with AsOfDatabase(usecase, {}, {}, threads=1) as db:
        db.features(decisions[0])
        return db.sources
