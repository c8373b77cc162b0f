"""Where each table of the lifecycle lies below the lake's root, `<layer>/...`, and the one list of them all."""

from collections.abc import Iterable

from ml_assets.answers import LANDED
from ml_assets.spec import EventSpec, ReferenceSpec, UseCase


def landing_table(topic: str) -> str:
    """Everything consumed from a topic: events, dead letters, gaps; partitioned by kind and business_date."""
    return f"landing/{topic}"


def reference_table(usecase: UseCase, reference: ReferenceSpec) -> str:
    """All published versions of a reference record."""
    return f"reference/{usecase.name}/{reference.name}"


def reference_quarantine_table(usecase: UseCase, reference: ReferenceSpec) -> str:
    """Lines of reference files that break their contract, with file, line and reason."""
    return f"quarantine/{usecase.name}/reference/{reference.name}"


def curated_table(usecase: UseCase, event: EventSpec) -> str:
    """Typed events that pass the rules, one row per key; partitioned by business_date."""
    return f"curated/{usecase.name}/{event.name}"


def quarantine_table(usecase: UseCase, event: EventSpec) -> str:
    """What curation left out, with the reason; partitioned by business_date."""
    return f"quarantine/{usecase.name}/{event.name}"


def daily_table(usecase: UseCase, name: str) -> str:
    """The kept parts of a daily table, each after a row with its inputs; partitioned by known_date."""
    return f"daily/{usecase.name}/{name}"


def source_tables(usecase: UseCase) -> list[str]:
    """Return the curated and reference tables that features are made from."""
    names = [curated_table(usecase, event) for event in usecase.events]
    return names + [reference_table(usecase, reference) for reference in usecase.references]


def features_table(usecase: UseCase) -> str:
    """One row per decision; partitioned by decision_date."""
    return f"features/{usecase.name}"


def decision_times_table(usecase: UseCase) -> str:
    """The decision times at which features were made, from what, also those without decisions; partitioned by date."""
    return f"decision_times/{usecase.name}"


def labels_table(usecase: UseCase) -> str:
    """The outcome of each decision; partitioned by known_date, the date on which it became known."""
    return f"labels/{usecase.name}"


def training_set_table(usecase: UseCase) -> str:
    """Decisions with labels, split; partitioned by training_date."""
    return f"training_sets/{usecase.name}"


def predictions_table(usecase: UseCase) -> str:
    """Scored decisions; partitioned by decision_date."""
    return f"predictions/{usecase.name}"


def shadow_table(usecase: UseCase) -> str:
    """What the model in the shadow says of the same decisions; partitioned by decision_date."""
    return f"shadow/{usecase.name}"


def outcomes_table(usecase: UseCase) -> str:
    """Predictions with their outcomes; partitioned by outcome_date."""
    return f"outcomes/{usecase.name}"


def tables_of(usecases: Iterable[UseCase]) -> list[str]:
    """Return the names of all tables that the lifecycle of these use cases writes, and the service, each once.

    A new kind of table belongs here: housekeeping knows no other tables.
    """
    names: list[str] = []
    for usecase in usecases:
        for event in usecase.events:
            names += [landing_table(event.topic), curated_table(usecase, event), quarantine_table(usecase, event)]
        for reference in usecase.references:
            names += [reference_table(usecase, reference), reference_quarantine_table(usecase, reference)]
        names += [daily_table(usecase, daily.name) for daily in usecase.daily]
        names += [
            of(usecase)
            for of in (
                features_table,
                decision_times_table,
                labels_table,
                training_set_table,
                predictions_table,
                shadow_table,
                outcomes_table,
            )
        ]
    names += [landing_table(event.topic) for event in LANDED]
    return list(dict.fromkeys(names))
