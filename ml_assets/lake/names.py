"""Where each table of the lifecycle lies below the lake's root: `<layer>/...`."""

from ml_assets.spec import EventSpec, ReferenceSpec, UseCase


def landing_table(topic: str) -> str:
    """All that was consumed of a topic: events, dead letters, gaps; partitioned by kind and business_date."""
    return f"landing/{topic}"


def reference_table(usecase: UseCase, reference: ReferenceSpec) -> str:
    """All published versions of a reference record."""
    return f"reference/{usecase.name}/{reference.name}"


def reference_quarantine_table(usecase: UseCase, reference: ReferenceSpec) -> str:
    """Lines of reference files that break their contract, with file, line and reason."""
    return f"quarantine/{usecase.name}/reference/{reference.name}"


def curated_table(usecase: UseCase, event: EventSpec) -> str:
    """Typed events, one of each key, that keep the rules; partitioned by business_date."""
    return f"curated/{usecase.name}/{event.name}"


def quarantine_table(usecase: UseCase, event: EventSpec) -> str:
    """What curation left out, with the reason; partitioned by business_date."""
    return f"quarantine/{usecase.name}/{event.name}"


def daily_table(usecase: UseCase, name: str) -> str:
    """The kept parts of a daily table, each after a row that says what it was made of; partitioned by known_date."""
    return f"daily/{usecase.name}/{name}"


def features_table(usecase: UseCase) -> str:
    """A row a decision; partitioned by decision_date."""
    return f"features/{usecase.name}"


def labels_table(usecase: UseCase) -> str:
    """The outcome of each decision; partitioned by known_date, the date on which it became known."""
    return f"labels/{usecase.name}"


def training_set_table(usecase: UseCase) -> str:
    """Decisions with labels, split; partitioned by training_date."""
    return f"training_sets/{usecase.name}"


def predictions_table(usecase: UseCase) -> str:
    """Scored decisions; partitioned by decision_date."""
    return f"predictions/{usecase.name}"
