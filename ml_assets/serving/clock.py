"""The service's clock: the present, or, if history was replayed, the time that its events have reached."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from ml_assets.lake import Lake, landing_table
from ml_assets.landing.schemas import EVENT
from ml_assets.spec import UseCase

# An event known this long before it landed was replayed: on the `live` clock no event is known before it lands.
_PLAYED_AGAIN = timedelta(days=1)


def clock_of(lake: Lake, usecases: Sequence[UseCase], fixed: datetime | None = None) -> Callable[[], datetime]:
    """Return the clock: `fixed` if given; else the present if events land as they happen; else the newest event's time.

    The events of a demo lie in another season than the demo, so the decisions that were open then are not open now. The
    first events decide which of the two clocks applies; a service that starts before they land waits for them.
    """
    return (lambda: fixed) if fixed is not None else _Clock(lake, usecases)


class _Clock:
    """Reads the landing tables until events have landed, and after that each changed table if history is replayed."""

    def __init__(self, lake: Lake, usecases: Sequence[UseCase]) -> None:
        self._lake = lake
        self._tables = sorted({landing_table(event.topic) for usecase in usecases for event in usecase.events})
        self._versions: dict[str, int | None] = dict.fromkeys(self._tables)
        self._known: dict[str, datetime] = {}
        self._landed: dict[str, datetime] = {}
        self._live = False

    def __call__(self) -> datetime:
        """Return the time of the service."""
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
