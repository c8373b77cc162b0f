"""Events and reference data of settlement, in the terms of ISO 20022, ISO 6166 (ISIN) and ISO 17442 (LEI)."""

from datetime import date
from typing import Literal

from ml_assets.contracts import Event, ReferenceRow


class Trade(Event, frozen=True, kw_only=True):
    """A trade with a counterparty, told by its unique transaction identifier (UTI)."""

    uti: str
    isin: str
    mic: str
    side: Literal["BUY", "SELL"]
    quantity: int
    price: float
    counterparty_lei: str


class SettlementInstruction(Event, frozen=True, kw_only=True):
    """An instruction to deliver (DELI) or receive (RECE) securities, against payment (APMT) or free (FREE).

    `pset` is the BIC of the place of settlement, `account` the counterparty's safekeeping account.
    """

    instruction_id: str
    uti: str
    isin: str
    movement: Literal["DELI", "RECE"]
    payment: Literal["APMT", "FREE"]
    quantity: int
    amount: float
    counterparty_lei: str
    account: str
    pset: str
    trade_date: date
    intended_settlement_date: date


class SettlementStatus(Event, frozen=True, kw_only=True):
    """A status of an instruction, with the reason: matched, not matched, pending, failing (PENF), cancelled (CANC).

    Both are codes of ISO 20022; `codes.py` lists them. A code that is not known is kept: markets have their own.
    PREA: our instruction is on hold. It is so until a status says that it is pending for another reason: once released,
    it awaits its settlement date (FUTU).
    """

    instruction_id: str
    status: str
    reason: str | None


class SettlementConfirmation(Event, frozen=True, kw_only=True):
    """A settled quantity, possibly a part of what was instructed; `event_time` is the time of settlement."""

    instruction_id: str
    quantity: int


class InventoryPosition(Event, frozen=True, kw_only=True):
    """What we can deliver of a security in the evening, after all that is due; below zero we are short."""

    isin: str
    available_quantity: int


class SecuritiesLending(Event, frozen=True, kw_only=True):
    """What it costs to borrow a security, in basis points a year, and the share of the lendable stock that is lent."""

    isin: str
    fee_bp: float
    utilisation: float


class Security(ReferenceRow, frozen=True, kw_only=True):
    """A security. `cfi_code` is its classification (ISO 10962); `asset_class` decides the penalty rate."""

    isin: str
    name: str
    cfi_code: str
    asset_class: str
    mic: str
    pset: str


class Counterparty(ReferenceRow, frozen=True, kw_only=True):
    """A counterparty. `tier` is that of the client relationship: core, established or other."""

    lei: str
    bic: str
    name: str
    country: str
    tier: Literal["core", "established", "other"]


class StandingSettlementInstruction(ReferenceRow, frozen=True, kw_only=True):
    """The account (SSI) in which a counterparty settles at a place of settlement."""

    lei: str
    pset: str
    account: str


class CutOff(ReferenceRow, frozen=True, kw_only=True):
    """Until when a place of settlement settles on a day: HH:MM, UTC."""

    pset: str
    cut_off: str


class PenaltyRate(ReferenceRow, frozen=True, kw_only=True):
    """The cash penalty for a day of failing, in basis points of the value (CSDR)."""

    asset_class: str
    bp_per_day: float
