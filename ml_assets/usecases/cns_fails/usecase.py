"""The use case on real data: the SEC's fails-to-deliver files, known weeks after the date that they tell of."""

from datetime import date, datetime, time, timedelta
from pathlib import Path

from ml_assets.calendars import BusinessCalendar
from ml_assets.learning.candidates import lightgbm, logistic, rule
from ml_assets.simulation.sec_ftd import TOPIC, publication_time
from ml_assets.spec import (
    ActionSpec,
    Cause,
    EventSpec,
    Feature,
    GateSpec,
    LabelSpec,
    SliceSpec,
    Slot,
    SplitSpec,
    UseCase,
)
from ml_assets.usecases.cns_fails.contracts import CnsFail


def known_at(outcome_date: date) -> datetime:
    """Return when the outcome of a settlement date is published."""
    return publication_time(outcome_date)


CAUSES = (
    Cause("RECENT", "a balance now", "borrow or recall before settlement; buy in what is old"),
    Cause("PERSISTENT", "a security that keeps failing", "look for its owner of record; agree a close-out date"),
    Cause("PRICE", "price and size of what fails", "check corporate actions and the price"),
    Cause("MARKET", "fails of the whole market", "raise liquidity and staffing"),
)

FEATURES = (
    Feature("last_fail_value", "Balance on the newest published date", "USD", cause="RECENT"),
    Feature("second_last_fail_value", "Balance on the published date before", "USD", cause="RECENT"),
    Feature("mean_fail_value_3d", "Mean balance over the last 3 published dates", "USD", cause="RECENT"),
    Feature("mean_fail_value_5d", "Mean balance over the last 5 published dates", "USD", cause="RECENT"),
    Feature("mean_fail_value_10d", "Mean balance over the last 10 published dates", "USD", cause="PERSISTENT"),
    Feature("mean_fail_value_20d", "Mean balance over the last 20 published dates", "USD", cause="PERSISTENT"),
    Feature("mean_fail_value_60d", "Mean balance over the last 60 published dates", "USD", cause="PERSISTENT"),
    Feature("max_fail_value_20d", "Largest balance over the last 20 published dates", "USD", cause="PERSISTENT"),
    Feature("median_fail_value", "Median balance of the dates that have one", "USD", cause="PERSISTENT"),
    Feature("large_rate_5d", "Share of the last 5 published dates with more than 100,000 USD", cause="RECENT"),
    Feature("large_rate_10d", "Share of the last 10 published dates with more than 100,000 USD", cause="PERSISTENT"),
    Feature("large_rate_20d", "Share of the last 20 published dates with more than 100,000 USD", cause="PERSISTENT"),
    Feature("large_rate_60d", "Share of the last 60 published dates with more than 100,000 USD", cause="PERSISTENT"),
    Feature(
        "half_large_rate_60d", "Share of the last 60 published dates with more than 50,000 USD", cause="PERSISTENT"
    ),
    Feature("any_rate_5d", "Share of the last 5 published dates with a balance", cause="RECENT"),
    Feature("any_rate_20d", "Share of the last 20 published dates with a balance", cause="PERSISTENT"),
    Feature("any_rate_60d", "Share of the last 60 published dates with a balance", cause="PERSISTENT"),
    Feature(
        "dates_since_large", "Published dates since the balance was above 100,000 USD; 99 if never", cause="RECENT"
    ),
    Feature("dates_since_any", "Published dates since there was a balance", cause="RECENT"),
    Feature("mean_log_value", "Mean of the logarithm of the balances", cause="PERSISTENT"),
    Feature("std_log_value", "Standard deviation of the logarithm of the balances", cause="PERSISTENT"),
    Feature("log_price", "Logarithm of the newest published price", cause="PRICE"),
    Feature("log_mean_quantity", "Logarithm of the mean number of shares", cause="PRICE"),
    Feature("log_price_change", "Logarithm of the newest over the oldest price", cause="PRICE"),
    Feature("market_trend", "Fails of the whole market, last 5 over last 20 published dates", cause="MARKET"),
    Feature("days_since_published", "Calendar days since the newest published date", "days"),
)

USE_CASE = UseCase(
    name="cns_fails",
    title="Large fails at the central counterparty",
    description=(
        "Will a security's balance of fails to deliver at NSCC exceed 100,000 USD on the next settlement date? Decided "
        "each business day from what the SEC had published by then."
    ),
    entity="security",
    owner="market-operations",
    tier="medium",
    folder=Path(__file__).parent,
    calendar=BusinessCalendar("NYSE"),
    first_partition=date(2020, 6, 1),
    events=(
        EventSpec(
            name="cns_fails",
            topic=TOPIC,
            contract=CnsFail,
            description="Balances of fails to deliver by security and settlement date, as the SEC publishes them.",
            rules={
                "the quantity is not positive": "quantity <= 0",
                "the price is negative": "price < 0",
                "the symbol is empty": "symbol = ''",
            },
            # 60 settlement dates, and up to seven weeks for which nothing has been published.
            history=timedelta(days=150),
        ),
    ),
    slots=(Slot("noon", time(12)),),
    features=FEATURES,
    causes=CAUSES,
    limits=(
        "Not for trading, and not for the fails of one member: rows are net balances of all members together.",
        "Balances are published two to six weeks late: what happened since is not in the features.",
        "A balance outstanding is not a new fail; its age is not published.",
        "Dates that no published file covers have no outcome and are neither trained on nor judged.",
    ),
    label=LabelSpec(
        name="large_fail",
        description="The balance of the security on the next business day is worth more than 100,000 USD.",
        known_at=known_at,
    ),
    split=SplitSpec(train_days=90, calibration_days=10, test_days=40),
    candidates=(
        rule("mean_fail_value_20d", description="Rank by the mean balance over the last 20 published dates."),
        logistic(),
        lightgbm(n_estimators=250, learning_rate=0.05, num_leaves=31, min_child_samples=500, colsample_bytree=0.5),
    ),
    capacity=100,
    # Work-lists are daily, and so is what models are compared by.
    gate=GateSpec(
        metric="per_day_pr_auc",
        floors={"brier_skill": 0.0},
        # The files of 2021 tell of another market than those of 2020: see docs/models.md.
        max_score_psi=0.5,
        slices=(SliceSpec("price", "attributes.price_band"), SliceSpec("recency", "attributes.recency")),
    ),
    # A look at the open deliveries of a security; the balance of the whole market moves little by what one bank does.
    action=ActionSpec(cost=5.0, effectiveness=0.2, until=time(16)),
    value="attributes.known_mean_fail_value",
    currency="USD",
    publication_pause=timedelta(days=35),
)
