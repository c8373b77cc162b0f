"""What the SEC publishes of fails to deliver at the NSCC's Continuous Net Settlement (CNS)."""

from datetime import date

from ml_assets.contracts import Event


class CnsFail(Event, frozen=True, kw_only=True):
    """The balance of shares of a security that all members together have failed to deliver, on a settlement date.

    It is a balance, not new fails; no row means no balance. `price` is the previous day's close in USD.
    """

    settlement_date: date
    symbol: str
    quantity: int
    price: float | None
    description: str
