"""What the SEC publishes of fails to deliver at the NSCC's Continuous Net Settlement (CNS)."""

from datetime import date, datetime
from typing import ClassVar

from ml_assets.contracts import Event


class CnsFail(Event, frozen=True, kw_only=True):
    """The balance of shares of a security that all members together have failed to deliver, on a settlement date.

    It is a balance, not new fails; no row means no balance. `price` is the previous day's close in USD. `published` is
    when the file was published that it stands in: a corrected file replaces the earlier one's whole dates.
    """

    schema_version: ClassVar[int] = 2

    settlement_date: date
    symbol: str
    quantity: int
    price: float | None
    description: str
    published: datetime | None = None
