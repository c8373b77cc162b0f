-- @entity: security (symbol)
-- @as_of: the last 200 settlement dates that were published at the decision; a date without a row is a zero
-- @owner: market-operations
--
-- Balances of the decided securities over the last 200 published settlement dates; a date without a row is a zero.
--
-- Nothing here depends on the decision's date, so it is made once a publication and not once a day.
--
-- The newest published date is two to six weeks old. What lasts longer than that says most: slowly weighted means (a
-- weight falls to a third in 30 dates), rates over a long time, and how often a large balance was large again.
WITH covered AS (
    SELECT settlement_date, row_number() OVER (ORDER BY settlement_date DESC) AS age
    FROM (SELECT DISTINCT settlement_date FROM cns_fails)
    QUALIFY age <= 200
),
-- A missing price is the last one published before it.
priced AS (
    SELECT
        symbol,
        age,
        quantity,
        coalesce(
            price,
            last_value(price IGNORE NULLS) OVER (PARTITION BY symbol ORDER BY settlement_date, event_id)
        ) AS price
    FROM cns_fails JOIN covered USING (settlement_date)
    WHERE symbol IN (SELECT entity_id FROM decisions)
),
daily AS (
    SELECT
        symbol, age, quantity, value, price,
        -- A step of 100,000 USD without an edge: half at the threshold, a third at 60,000 USD.
        coalesce(1 / (1 + pow(100000 / nullif(value, 0), 1.5)), 0) AS nearly_large,
        ln(nullif(price, 0) / nullif(lead(price) OVER (PARTITION BY symbol ORDER BY age), 0)) AS price_change
    FROM (
        SELECT symbol, age, sum(quantity) AS quantity, sum(quantity * price) AS value, max(price) AS price
        FROM priced
        GROUP BY symbol, age
    )
),
market AS (
    SELECT sum(value) FILTER (WHERE age <= 5) / nullif(sum(value) FILTER (WHERE age <= 20) / 4, 0) AS trend FROM daily
),
published AS (
    SELECT
        count(*) AS dates,
        least(count(*), 60) AS dates_60d,
        least(count(*), 90) AS dates_90d,
        sum(exp(-(age - 1) / 60)) AS weights_60d,
        sum(exp(-(age - 1) / 30)) AS weights_30d,
        sum(exp(-(age - 1) / 15)) AS weights_15d,
        sum(exp(-(age - 1) / 10)) AS weights_10d
    FROM covered
),
-- Spells of large balances, without a date between: where they begin and end, and how long the newest one lasts by now.
spells AS (
    SELECT
        symbol,
        count(*) FILTER (WHERE age_before = age + 1) AS continued,
        count(*) FILTER (WHERE age_before IS DISTINCT FROM age + 1) AS spells,
        count(*) FILTER (WHERE age_before IS DISTINCT FROM age + 1 AND age < 60)
            + count(*) FILTER (WHERE age_after IS DISTINCT FROM age - 1 AND age BETWEEN 2 AND 60) AS changes_60d,
        count(*) FILTER (WHERE age = number) AS newest_spell
    FROM (
        SELECT
            symbol,
            age,
            lead(age) OVER by_age AS age_before,
            lag(age) OVER by_age AS age_after,
            row_number() OVER by_age AS number
        FROM daily
        WHERE value > 100000
        WINDOW by_age AS (PARTITION BY symbol ORDER BY age)
    )
    GROUP BY symbol
)
SELECT
    symbol AS entity_id,
    coalesce(sum(value) FILTER (WHERE age = 1), 0) AS last_fail_value,
    coalesce(sum(value) FILTER (WHERE age = 2), 0) AS second_last_fail_value,
    coalesce(sum(value) FILTER (WHERE age <= 3), 0) / 3 AS mean_fail_value_3d,
    coalesce(sum(value) FILTER (WHERE age <= 5), 0) / 5 AS mean_fail_value_5d,
    coalesce(sum(value) FILTER (WHERE age <= 10), 0) / 10 AS mean_fail_value_10d,
    coalesce(sum(value) FILTER (WHERE age <= 20), 0) / 20 AS mean_fail_value_20d,
    coalesce(sum(value) FILTER (WHERE age <= 60), 0) / any_value(published.dates_60d) AS mean_fail_value_60d,
    coalesce(max(value) FILTER (WHERE age <= 20), 0) AS max_fail_value_20d,
    coalesce(median(value) FILTER (WHERE age <= 60), 0) AS median_fail_value,
    count(*) FILTER (WHERE value > 100000 AND age <= 5) / 5 AS large_rate_5d,
    count(*) FILTER (WHERE value > 100000 AND age <= 10) / 10 AS large_rate_10d,
    count(*) FILTER (WHERE value > 100000 AND age <= 20) / 20 AS large_rate_20d,
    count(*) FILTER (WHERE value > 100000 AND age <= 60) / any_value(published.dates_60d) AS large_rate_60d,
    count(*) FILTER (WHERE value > 100000 AND age <= 90) / any_value(published.dates_90d) AS large_rate_90d,
    count(*) FILTER (WHERE value > 100000) / any_value(published.dates) AS large_rate,
    count(*) FILTER (WHERE value > 50000 AND age <= 60) / any_value(published.dates_60d) AS half_large_rate_60d,
    count(*) FILTER (WHERE value > 200000 AND age <= 60) / any_value(published.dates_60d) AS twice_large_rate_60d,
    coalesce(sum(exp(-(age - 1) / 30)) FILTER (WHERE value > 100000), 0) / any_value(published.weights_30d)
        AS weighted_large_rate_30d,
    coalesce(sum(exp(-(age - 1) / 10)) FILTER (WHERE value > 100000), 0) / any_value(published.weights_10d)
        AS weighted_large_rate_10d,
    ln(1 + coalesce(sum(exp(-(age - 1) / 30) * value), 0) / any_value(published.weights_30d))
        AS log_weighted_value_30d,
    ln(1 + coalesce(sum(exp(-(age - 1) / 10) * value), 0) / any_value(published.weights_10d))
        AS log_weighted_value_10d,
    coalesce(sum(exp(-(age - 1) / 30) * ln(1 + value)), 0) / any_value(published.weights_30d)
        AS weighted_log_value_30d,
    -- Rounded: the last digits of a sum depend on the order of its terms, and a rank makes a step of them.
    percent_rank() OVER (ORDER BY round(coalesce(sum(exp(-(age - 1) / 30) * ln(1 + value)), 0), 6))
        AS rank_of_weighted_value,
    (coalesce(any_value(spells.continued), 0) + 0.5) / (count(*) FILTER (WHERE value > 100000) + 2)
        AS stays_large_rate,
    coalesce(any_value(spells.spells), 0) / any_value(published.dates) AS large_spell_rate,
    (count(*) FILTER (WHERE value > 100000) + 1) / (coalesce(any_value(spells.spells), 0) + 1) AS large_spell_length,
    coalesce(any_value(spells.newest_spell), 0) AS newest_large_spell,
    -- What is large on the first date of all did not become large on it, for all that is known.
    coalesce(any_value(spells.changes_60d), 0)
        - count(*) FILTER (WHERE value > 100000 AND age < 60 AND age = published.dates) AS large_changes_60d,
    coalesce(sum(exp(-(age - 1) / 15) * nearly_large), 0) / any_value(published.weights_15d) AS nearly_large_rate_15d,
    coalesce(sum(exp(-(age - 1) / 30) * nearly_large), 0) / any_value(published.weights_30d) AS nearly_large_rate_30d,
    coalesce(sum(exp(-(age - 1) / 60) * nearly_large), 0) / any_value(published.weights_60d) AS nearly_large_rate_60d,
    coalesce(sum(nearly_large), 0) / any_value(published.dates) AS nearly_large_rate,
    -- The same by the age of the dates, so that a model can weigh the ages itself.
    coalesce(sum(nearly_large) FILTER (WHERE age BETWEEN 1 AND 5), 0)
        / nullif(greatest(least(any_value(published.dates), 5) - 0, 0), 0) AS nearly_large_rate_1_5,
    coalesce(sum(nearly_large) FILTER (WHERE age BETWEEN 6 AND 10), 0)
        / nullif(greatest(least(any_value(published.dates), 10) - 5, 0), 0) AS nearly_large_rate_6_10,
    coalesce(sum(nearly_large) FILTER (WHERE age BETWEEN 11 AND 15), 0)
        / nullif(greatest(least(any_value(published.dates), 15) - 10, 0), 0) AS nearly_large_rate_11_15,
    coalesce(sum(nearly_large) FILTER (WHERE age BETWEEN 16 AND 25), 0)
        / nullif(greatest(least(any_value(published.dates), 25) - 15, 0), 0) AS nearly_large_rate_16_25,
    coalesce(sum(nearly_large) FILTER (WHERE age BETWEEN 26 AND 40), 0)
        / nullif(greatest(least(any_value(published.dates), 40) - 25, 0), 0) AS nearly_large_rate_26_40,
    coalesce(sum(nearly_large) FILTER (WHERE age BETWEEN 41 AND 60), 0)
        / nullif(greatest(least(any_value(published.dates), 60) - 40, 0), 0) AS nearly_large_rate_41_60,
    coalesce(sum(nearly_large) FILTER (WHERE age BETWEEN 61 AND 90), 0)
        / nullif(greatest(least(any_value(published.dates), 90) - 60, 0), 0) AS nearly_large_rate_61_90,
    -- Quantiles over all dates, those without a balance included: the so many-th largest.
    coalesce(ln(1 + (list(value ORDER BY value DESC) FILTER (WHERE age <= 60))
        [1 + (any_value(published.dates_60d) * 0.5)::INT]), 0) AS log_fail_value_q50,
    coalesce(ln(1 + (list(value ORDER BY value DESC) FILTER (WHERE age <= 60))
        [1 + (any_value(published.dates_60d) * 0.25)::INT]), 0) AS log_fail_value_q75,
    coalesce(ln(1 + (list(value ORDER BY value DESC) FILTER (WHERE age <= 60))
        [1 + (any_value(published.dates_60d) * 0.1)::INT]), 0) AS log_fail_value_q90,
    coalesce(ln(1 + (list(value ORDER BY value DESC) FILTER (WHERE age <= 60))
        [1 + (any_value(published.dates_60d) * 0.03)::INT]), 0) AS log_fail_value_q97,
    sum(exp(-(age - 1) / 30)) / any_value(published.weights_30d) AS weighted_any_rate_30d,
    sum(exp(-(age - 1) / 30) * ln(1 + quantity)) / any_value(published.weights_30d) AS weighted_log_quantity_30d,
    max(age) AS dates_since_first,
    count(*) FILTER (WHERE age <= 5) / 5 AS any_rate_5d,
    count(*) FILTER (WHERE age <= 20) / 20 AS any_rate_20d,
    count(*) FILTER (WHERE age <= 60) / any_value(published.dates_60d) AS any_rate_60d,
    coalesce(min(age) FILTER (WHERE value > 100000), 99) AS dates_since_large,
    min(age) AS dates_since_any,
    avg(ln(1 + value)) AS mean_log_value,
    stddev_pop(ln(1 + value)) AS std_log_value,
    ln(arg_min(price, age)) AS log_price,
    percent_rank() OVER (ORDER BY arg_min(price, age)) AS rank_of_price,
    ln(1 + avg(quantity)) AS log_mean_quantity,
    ln(arg_min(price, age) / nullif(arg_max(price, age), 0)) AS log_price_change,
    ln(nullif(arg_min(price, age), 0) / nullif(arg_min(price, age) FILTER (WHERE age >= 20), 0)) AS log_price_change_20d,
    stddev_pop(price_change) FILTER (WHERE age <= 60) AS price_volatility_60d,
    any_value(market.trend) AS market_trend
FROM daily LEFT JOIN spells USING (symbol), market, published
GROUP BY symbol
