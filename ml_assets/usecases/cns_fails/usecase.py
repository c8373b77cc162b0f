"""The use case on real data: the SEC's fails-to-deliver files, known weeks after the dates that they cover."""

from datetime import date, time, timedelta
from pathlib import Path

from ml_assets.calendars import BusinessCalendar
from ml_assets.learning.candidates import hist_gradient_boosting, lightgbm, logistic, rule
from ml_assets.spec import (
    ActionSpec,
    Cause,
    DeskColumn,
    DeskSpec,
    EventSpec,
    Feature,
    GateSpec,
    Integer,
    LabelSpec,
    SearchSpec,
    SliceSpec,
    Slot,
    SplitSpec,
    UseCase,
)
from ml_assets.usecases.cns_fails.contracts import CnsFail
from ml_assets.usecases.cns_fails.publication import TOPIC, publication_time

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
    Feature("large_rate_90d", "Share of the last 90 published dates with more than 100,000 USD", cause="PERSISTENT"),
    Feature("large_rate", "Share of the last 200 published dates with more than 100,000 USD", cause="PERSISTENT"),
    Feature(
        "twice_large_rate_60d", "Share of the last 60 published dates with more than 200,000 USD", cause="PERSISTENT"
    ),
    Feature("weighted_large_rate_30d", "Large dates, weights falling to a third in 30 dates", cause="PERSISTENT"),
    Feature("weighted_large_rate_10d", "Large dates, weights falling to a third in 10 dates", cause="PERSISTENT"),
    Feature("log_weighted_value_30d", "Logarithm of the mean balance, weighted over 30 dates", cause="PERSISTENT"),
    Feature("log_weighted_value_10d", "Logarithm of the mean balance, weighted over 10 dates", cause="PERSISTENT"),
    Feature("weighted_log_value_30d", "Mean logarithm of the balance, weighted over 30 dates", cause="PERSISTENT"),
    Feature("rank_of_weighted_value", "Its rank among the securities of the day, 0 to 1", cause="PERSISTENT"),
    Feature("stays_large_rate", "How often a large balance was large on the date before too", cause="PERSISTENT"),
    Feature("large_spell_rate", "Spells of large balances a published date, of 200 dates", cause="PERSISTENT"),
    Feature("large_spell_length", "Mean length of its spells of large balances", "dates", cause="PERSISTENT"),
    Feature("newest_large_spell", "How long its balance has been large, on the newest date", "dates", cause="RECENT"),
    Feature("large_changes_60d", "How often it became large or ceased to be in 60 dates", cause="PERSISTENT"),
    Feature("nearly_large_rate_15d", "Closeness to 100,000 USD, 0 to 1, weighted over 15 dates", cause="RECENT"),
    Feature("nearly_large_rate_30d", "Closeness to 100,000 USD, 0 to 1, weighted over 30 dates", cause="PERSISTENT"),
    Feature("nearly_large_rate_60d", "Closeness to 100,000 USD, 0 to 1, weighted over 60 dates", cause="PERSISTENT"),
    Feature("nearly_large_rate", "Closeness to 100,000 USD, 0 to 1, over 200 dates", cause="PERSISTENT"),
    Feature("nearly_large_rate_1_5", "Closeness to 100,000 USD, 0 to 1, dates 1 to 5 from the newest", cause="RECENT"),
    Feature(
        "nearly_large_rate_6_10", "Closeness to 100,000 USD, 0 to 1, dates 6 to 10 from the newest", cause="RECENT"
    ),
    Feature(
        "nearly_large_rate_11_15",
        "Closeness to 100,000 USD, 0 to 1, dates 11 to 15 from the newest",
        cause="PERSISTENT",
    ),
    Feature(
        "nearly_large_rate_16_25",
        "Closeness to 100,000 USD, 0 to 1, dates 16 to 25 from the newest",
        cause="PERSISTENT",
    ),
    Feature(
        "nearly_large_rate_26_40",
        "Closeness to 100,000 USD, 0 to 1, dates 26 to 40 from the newest",
        cause="PERSISTENT",
    ),
    Feature(
        "nearly_large_rate_41_60",
        "Closeness to 100,000 USD, 0 to 1, dates 41 to 60 from the newest",
        cause="PERSISTENT",
    ),
    Feature(
        "nearly_large_rate_61_90",
        "Closeness to 100,000 USD, 0 to 1, dates 61 to 90 from the newest",
        cause="PERSISTENT",
    ),
    Feature("log_fail_value_q50", "Logarithm of the median balance of 60 dates, none as 0", cause="PERSISTENT"),
    Feature("log_fail_value_q75", "Logarithm of the upper quartile of 60 dates", cause="PERSISTENT"),
    Feature("log_fail_value_q90", "Logarithm of the 90 % quantile of 60 dates", cause="PERSISTENT"),
    Feature("log_fail_value_q97", "Logarithm of the 97 % quantile of 60 dates", cause="PERSISTENT"),
    Feature("weighted_any_rate_30d", "Dates with a balance, weighted over 30 dates", cause="PERSISTENT"),
    Feature("weighted_log_quantity_30d", "Mean logarithm of the shares, weighted over 30 dates", cause="PERSISTENT"),
    Feature("dates_since_first", "Published dates since the first balance, of 200", cause="PERSISTENT"),
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
    Feature("rank_of_price", "Rank of the price among the securities of the day, 0 to 1", cause="PRICE"),
    Feature("kind", "Kind of security, by its description", kind="categorical", cause="PRICE"),
    Feature(
        "words_mean", "How much the words of its description fail, mean log of rate over the market's", cause="PRICE"
    ),
    Feature("words_most", "The same of the word that fails most", cause="PRICE"),
    Feature("words_least", "The same of the word that fails least", cause="PRICE"),
    Feature("log_mean_quantity", "Logarithm of the mean number of shares", cause="PRICE"),
    Feature("log_price_change", "Logarithm of the newest over the oldest price", cause="PRICE"),
    Feature("log_price_change_20d", "Logarithm of the price over that of 20 dates before", cause="PRICE"),
    Feature("price_volatility_60d", "Deviation of the logarithmic price changes of 60 dates", cause="PRICE"),
    Feature("symbol_length", "Letters of the symbol", cause="PRICE"),
    Feature("symbol_suffix", "Last letter of a symbol of five, else `exchange`", kind="categorical", cause="PRICE"),
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
            edition="published",
            edition_of=("settlement_date",),
            description="Balances of fails to deliver by security and settlement date, as the SEC publishes them.",
            rules={
                "the quantity is not positive": "quantity <= 0",
                "the price is negative": "price < 0",
                "the symbol is empty": "symbol = ''",
                # One row would be the newest date of all securities, or replace a whole date.
                "the settlement date is not that of the event": "settlement_date <> event_time::DATE",
                "it was published after it was known": "published > known_at + INTERVAL 5 MINUTE",
            },
            # 200 settlement dates, and up to seven weeks for which nothing has been published.
            history=timedelta(days=340),
        ),
    ),
    slots=(Slot("noon", time(12), days_before=1),),
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
        known_at=publication_time,
    ),
    # Markets change: with more than 70 days of them a trial was no better; see docs/models.md.
    split=SplitSpec(train_days=70, calibration_days=10, test_days=40, folds=2, fold_days=10, refit=True),
    candidates=(
        rule("mean_fail_value_20d", description="Rank by the mean balance over the last 20 published dates."),
        logistic(),
        lightgbm(
            n_estimators=350,
            learning_rate=0.025,
            num_leaves=24,
            min_child_samples=800,
            colsample_bytree=0.3,
            search=SearchSpec(
                {"num_leaves": Integer(8, 64, log=True), "min_child_samples": Integer(200, 4000, log=True)},
                trials=6,
                seconds=60,
            ),
        ),
        hist_gradient_boosting(max_iter=150, learning_rate=0.05, max_leaf_nodes=24, min_samples_leaf=800),
    ),
    capacity=100,
    # Work-lists are daily, and so is what models are compared by.
    gate=GateSpec(
        metric="per_day_pr_auc",
        floors={"brier_skill": 0.0},
        # The files of 2021 tell of another market than those of 2020: see docs/models.md.
        max_score_psi=0.5,
        slices=(
            SliceSpec("price", "attributes.price_band"),
            # It asks for another outcome: a new large balance, where the newest published date had none.
            SliceSpec("onset", "attributes.onset", focus="yes", focus_gain=0.15),
        ),
    ),
    # A look at the open deliveries of a security; the balance of the whole market moves little by what one bank does.
    action=ActionSpec(cost=5.0, effectiveness=0.2, until=time(16)),
    desk=DeskSpec(
        columns=(
            DeskColumn("description", "Description"),
            DeskColumn(
                "known_mean_fail_value", "Mean fail value", detail="price_band", detail_title="Price band", unit="USD"
            ),
            DeskColumn(
                "last_published",
                "Last published",
                detail="onset",
                detail_title="Balance",
                codes={"yes": "new", "no": "known"},
            ),
        ),
        filters=("price_band", "onset"),
        zone="America/New_York",
    ),
    value="attributes.known_mean_fail_value",
    currency="USD",
    publication_pause=timedelta(days=35),
)
