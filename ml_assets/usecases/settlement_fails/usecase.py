"""The flagship: which settlement instructions will fail, so that operations can act before they do."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_assets.calendars import BusinessCalendar
from ml_assets.learning.candidates import hist_gradient_boosting, lightgbm, logistic, rule
from ml_assets.spec import (
    FEEDBACK,
    ActionSpec,
    Cause,
    DailySpec,
    DeskColumn,
    DeskSpec,
    DriftSpec,
    EventSpec,
    Feature,
    GateSpec,
    LabelSpec,
    MonitoringSpec,
    Need,
    PlaceSpec,
    ReferenceSpec,
    SinceChangeSpec,
    SliceSpec,
    Slot,
    SplitSpec,
    UseCase,
)
from ml_assets.usecases.settlement_fails.codes import REASONS, STATUSES
from ml_assets.usecases.settlement_fails.contracts import (
    Counterparty,
    CutOff,
    InventoryPosition,
    PenaltyRate,
    SecuritiesLending,
    Security,
    SettlementConfirmation,
    SettlementInstruction,
    SettlementStatus,
    StandingSettlementInstruction,
    Trade,
)
from ml_assets.usecases.settlement_fails.places import CALENDARS, TARGET

CALENDAR = TARGET
# Outcomes of so long ago still count for the track record of a counterparty.
_TRACK_RECORD = timedelta(days=60)
# From its instruction to the end of its settlement date, and to a late status of it.
_OPEN = timedelta(days=20)


def known_at(outcome_date: date, calendar: BusinessCalendar = CALENDAR) -> datetime:
    """Return when the outcome of an intended settlement date is known: early on the next business day of the place."""
    return datetime.combine(calendar.next(outcome_date), time(6), tzinfo=UTC)


EVENTS = (
    EventSpec(
        name="trades",
        topic="trades",
        contract=Trade,
        description="Trades, as the front office books them.",
        key=("uti",),
        rules={"the quantity is not positive": "quantity <= 0", "the price is not positive": "price <= 0"},
        history=timedelta(days=7),
    ),
    EventSpec(
        name="settlement_instructions",
        topic="settlement_instructions",
        contract=SettlementInstruction,
        description="Settlement instructions, as sent to the depositories.",
        key=("instruction_id",),
        rules={
            "the quantity is not positive": "quantity <= 0",
            "the amount is not positive": "amount <= 0",
            "it settles before it trades": "intended_settlement_date < trade_date",
        },
        history=_OPEN,
    ),
    EventSpec(
        name="settlement_status",
        topic="settlement_status",
        contract=SettlementStatus,
        description=(
            "Statuses of instructions: matched, not matched, on hold, pending for another reason, failing, cancelled."
        ),
        codes={"status": STATUSES, "reason": REASONS},
        history=_OPEN,
    ),
    EventSpec(
        name="settlement_confirmations",
        topic="settlement_confirmations",
        contract=SettlementConfirmation,
        description="Settled quantities, in full or in part.",
        rules={"the quantity is not positive": "quantity <= 0"},
        history=timedelta(days=10),
    ),
    EventSpec(
        name="inventory_positions",
        topic="inventory_positions",
        contract=InventoryPosition,
        description="Evening positions of what can be delivered.",
        history=timedelta(days=7),
    ),
    EventSpec(
        name="securities_lending",
        topic="securities_lending",
        contract=SecuritiesLending,
        description="What it costs to borrow each security.",
        rules={
            "the fee is negative": "fee_bp < 0",
            "the utilisation is no share": "utilisation NOT BETWEEN 0 AND 1",
        },
        history=timedelta(days=7),
    ),
)
REFERENCES = (
    ReferenceSpec("securities", Security, ("isin",), "Securities with their classification."),
    ReferenceSpec("counterparties", Counterparty, ("lei",), "Counterparties."),
    ReferenceSpec(
        "standing_settlement_instructions",
        StandingSettlementInstruction,
        ("lei", "pset"),
        "Accounts in which counterparties settle.",
    ),
    ReferenceSpec(
        "cut_offs",
        CutOff,
        ("pset",),
        "Cut-offs of the places of settlement.",
        rules={
            "the cut-off is not a time of day, HH:MM": (
                "NOT regexp_full_match(cut_off, '([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?')"
            )
        },
    ),
    ReferenceSpec(
        "penalty_rates",
        PenaltyRate,
        ("asset_class",),
        "Cash penalties for fails.",
        rules={"the rate is not between 0 and 10,000 basis points a day": "bp_per_day NOT BETWEEN 0 AND 10000"},
    ),
)
# Reason codes of ISO 20022, but SSI; what operations do about each.
CAUSES = (
    Cause("LACK", "lack of securities", "borrow, recall or settle partially"),
    Cause("CLAC", "counterparty short", "chase the counterparty, accept a partial"),
    Cause("NMAT", "not matched, or sent late to match", "chase the match; amend what differs"),
    Cause("SSI", "another account than the standing one", "repair the settlement instruction"),
    Cause("MONY", "cash", "fund the account"),
    Cause("PREA", "on hold", "release the instruction"),
)


def cause_for(code: str, attributes: Mapping[str, Any]) -> str:
    """Return the cause as it meets us: where we receive, it is the counterparty that lacks a scarce security."""
    return "CLAC" if code == "LACK" and attributes.get("movement") == "RECE" else code


def checklist(columns: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Return the points of operations' checklist from the features that it counts, as status.sql does."""
    fee = np.nan_to_num(np.exp(columns["log_borrowing_fee"]))
    points: NDArray[Any] = (
        3.0 * (columns["matching_status"] == "NMAT")
        + 2.0 * (columns["on_hold_at"] != "NONE")
        + 2.0 * columns["lacks_inventory"]
        + 2.0 * columns["differs_from_ssi"]
        + columns["instructed_late"]
        + np.minimum(1.9, fee / 100)
    )
    return np.asarray(np.nan_to_num(points))


def counterparty_part(columns: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Return what the counterparty adds to the prior log-odds."""
    return np.asarray(np.nan_to_num(columns["counterparty_relative_rate"]))


FEATURES = (
    Feature("slot", "Decision slot", kind="categorical"),
    Feature("asset_class", "Asset class of the security", kind="categorical"),
    Feature("matching_status", "Newest matching status: MACH, NMAT or NONE", kind="categorical", cause="NMAT"),
    Feature("unmatched_on_isd", "Still not matched on the settlement date", cause="NMAT"),
    Feature("log_amount", "Logarithm of the settlement amount", "log EUR", cause="MONY"),
    Feature("differs_from_ssi", "The account is not the counterparty's standing one", cause="SSI"),
    Feature("instructed_late", "Instructed after the trade date", cause="NMAT"),
    # By slot: a hold that lasts until the settlement date is far worse than one on the trade date.
    Feature(
        "on_hold_at", "Decision slot if the instruction is on hold then, else NONE", kind="categorical", cause="PREA"
    ),
    Feature("lacks_inventory", "We deliver and are short of the security", cause="LACK"),
    Feature("lacks_inventory_on_isd", "Still short of it on the settlement date", cause="LACK"),
    Feature("log_borrowing_fee", "Logarithm of the fee to borrow the security", "log bp", cause="LACK"),
    Feature(
        "checklist_points",
        "Operations' checklist: 3 not matched, 2 on hold, 2 short, 2 another account, 1 instructed late, "
        "up to 1.9 dear to borrow",
        explained_by=checklist,
    ),
    Feature(
        "counterparty_relative_rate",
        "Fails of the counterparty over those expected, 60 days",
        "log ratio",
        cause="CLAC",
    ),
    Feature(
        "prior_log_odds",
        "Fail rate of the asset class, times the counterparty's relative rate and the market's of the newest date",
        "log-odds",
        explained_by=counterparty_part,
    ),
)

USE_CASE = UseCase(
    name="settlement_fails",
    title="Settlement fails",
    description=(
        "Will an instruction not be fully settled by the cut-off on its intended settlement date? Decided on the "
        "evening of the trade date, the afternoon before settlement and its morning."
    ),
    entity="instruction",
    owner="settlement-operations",
    tier="high",
    folder=Path(__file__).parent,
    calendar=CALENDAR,
    first_partition=date(2026, 1, 5),
    events=EVENTS,
    references=REFERENCES,
    daily=(DailySpec("outcomes", "Instructions and fails by counterparty and asset class.", _TRACK_RECORD),),
    slots=(
        Slot("isd_morning", time(7), days_before=0),
        Slot("isd_minus_1", time(15), days_before=1),
        Slot("end_of_trade_date", time(20)),
    ),
    features=FEATURES,
    causes=CAUSES,
    cause_for=cause_for,
    limits=(
        "Not for setting limits of counterparties or for their creditworthiness: it ranks instructions for operations.",
        "Trained and tested on a simulated market; on a bank's own events it must be trained and judged anew.",
        "The track record of a counterparty is 60 days long: a new counterparty counts as average.",
        "Cash is seen only through size, for no event tells of it; a hold of the counterparty in its track record.",
        "Its level follows the fails of the newest settlement date that is over: what was traded on the first two days "
        "of a stress, or after one, is scored as if it had not begun, or not ended.",
    ),
    label=LabelSpec(
        name="failed",
        description="The instruction was not fully settled by the cut-off on its intended settlement date.",
        known_at=known_at,
    ),
    # Six days may all lie in a stress: the shape of the probabilities is theirs, the level that of all days.
    split=SplitSpec(train_days=34, calibration_days=6, test_days=10, folds=2, fold_days=5, level_from="learned"),
    candidates=(
        rule("checklist_points", description="Operations' checklist: the most points first."),
        logistic(),
        # The log-odds nearly add up, so the trees are shallow; and few, as each waits for all threads.
        lightgbm(n_estimators=200, learning_rate=0.12, num_leaves=5, min_child_samples=1000, subsample_freq=0),
        hist_gradient_boosting(max_iter=120, learning_rate=0.15, max_leaf_nodes=5, min_samples_leaf=1000),
    ),
    capacity=100,
    gate=GateSpec(
        min_test_positives=500,
        # Two folds of five days do not tell models apart that are closer.
        indifference=0.002,
        min_lift=0.05,
        max_calibration_error=0.02,
        floors={"brier_skill": 0.0},
        slices=(
            SliceSpec("market", "attributes.market"),
            SliceSpec("asset_class", "asset_class"),
            SliceSpec("counterparty_tier", "attributes.counterparty_tier"),
            SliceSpec("slot", "slot"),
            SliceSpec("feedback", FEEDBACK),
        ),
    ),
    monitoring=MonitoringSpec(
        since_change=SinceChangeSpec(),
        drift=DriftSpec(groups=("attributes.counterparty", "matching_status", "instructed_late")),
    ),
    # A few minutes of an analyst; one fail in two that is chased in time is settled in time.
    action=ActionSpec(cost=5.0, effectiveness=0.5, until=time(16)),
    desk=DeskSpec(
        columns=(
            DeskColumn("counterparty", "Counterparty", detail="counterparty_tier", detail_title="Tier"),
            DeskColumn("security", "Security", detail="isin", detail_title="ISIN"),
            DeskColumn(
                "amount",
                "Amount",
                detail="movement",
                detail_title="Side",
                codes={"DELI": "deliver", "RECE": "receive"},
                unit="EUR",
            ),
            DeskColumn("pset", "Place of settlement", detail="market", detail_title="Market"),
        ),
        filters=("market", "movement", "counterparty_tier"),
        cut_off="cut_off",
        zone="Europe/Paris",
    ),
    value="attributes.amount",
    needs=(Need("cut_off", by="pset", without="no cut-off is known: such decisions get no label"),),
    places=PlaceSpec("pset", CALENDARS, known_at),
    currency="EUR",
)
