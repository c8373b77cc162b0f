"""What time it is for the service: now, or, where history was played again, the time that its events have reached."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from ml_assets.lake import Lake, landing_table
from ml_assets.landing.schemas import EVENT
from ml_assets.spec import UseCase

# What was known so long before it landed was played again: on the `live` clock nothing is known before it lands.
_PLAYED_AGAIN = timedelta(days=1)


def clock_of(lake: Lake, usecases: Sequence[UseCase], fixed: datetime | None = None) -> Callable[[], datetime]:
    """Return the clock: `fixed` if it is given; now, if events land as they happen; else what they have reached.

    A demo's events lie in another season than the demo: decisions that were open then are none that are open now. Which
    of the two it is the first events say; a service that starts before they land waits for them.
    """
    return (lambda: fixed) if fixed is not None else _Clock(lake, usecases)


class _Clock:
    """Looks at the landing tables: until something has landed, and at each that has moved if it is played again."""

    def __init__(self, lake: Lake, usecases: Sequence[UseCase]) -> None:
        self._lake = lake
        self._tables = sorted({landing_table(event.topic) for usecase in usecases for event in usecase.events})
        self._versions: dict[str, int | None] = dict.fromkeys(self._tables)
        self._known: dict[str, datetime] = {}
        self._landed: dict[str, datetime] = {}
        self._live = False

    def __call__(self) -> datetime:
        """Return the time."""
        if not self._live:
            self._look()
        if self._known and not self._live:
            return max(self._known.values())
        return datetime.now(UTC)

    def _look(self) -> None:
        for table in self._tables:
            version = self._lake.version(table)
            if version == self._versions[table]:
                continue
            files = self._lake.files(table, "business_date", kind=EVENT)
            known = [file.known_until for file in files if file.known_until is not None]
            landed = [file.landed_until for file in files if file.landed_until is not None]
            if known and landed:
                self._known[table], self._landed[table] = max(known), max(landed)
            self._versions[table] = version
        if self._known:
            self._live = max(self._known.values()) + _PLAYED_AGAIN >= max(self._landed.values())
