-- @entity: security (symbol)
-- @as_of: the last 20 settlement dates that were published at the decision
-- @owner: market-operations
--
-- Securities with a balance on one of the last 20 settlement dates that have been published.
--
-- A decision is about the next business day. What a fail costs: a day's funding, at 5 % a year, of what usually fails
-- of it, and at least of the 100,000 USD that make it an outcome.
WITH covered AS (
    -- A date is covered by a published file if it has any row: a real one has thousands.
    SELECT DISTINCT settlement_date FROM cns_fails ORDER BY settlement_date DESC LIMIT 20
),
recent AS (
    SELECT
        symbol,
        arg_max(description, settlement_date) AS description,
        arg_max(price, settlement_date) AS price,
        sum(quantity * coalesce(price, 0)) / 20 AS mean_fail_value,
        -- A balance that never had a price counts as none, as in the mean.
        coalesce(
            sum(quantity * price) FILTER (WHERE settlement_date = (SELECT max(settlement_date) FROM covered)), 0
        ) AS last_value
    FROM cns_fails SEMI JOIN covered USING (settlement_date)
    GROUP BY symbol
)
SELECT
    symbol AS entity_id,
    (SELECT next FROM business_days WHERE business_date = getvariable('decision_date')) AS outcome_date,
    greatest(mean_fail_value, 100000) * 0.05 / 360 AS cost_if_fail,
    json_object(
        'symbol', symbol,
        'description', description,
        'known_mean_fail_value', round(mean_fail_value),
        'last_published', (SELECT max(settlement_date) FROM covered),
        'price_band', CASE WHEN price < 5 THEN 'below 5' WHEN price < 25 THEN '5 to 25' ELSE '25 or more' END,
        'onset', CASE WHEN last_value > 100000 THEN 'no' ELSE 'yes' END
    )::VARCHAR AS attributes,
    CASE
        WHEN description SIMILAR TO '.*(ETF|ETN|ISHARES|SPDR|PROSHARES|DIREXION|INVESCO|VANGUARD|FUND|TRUST SER).*'
        THEN 'fund'
        WHEN description SIMILAR TO '.*(WARRANT|\bWTS?\b|\bUNIT).*' THEN 'warrant or unit'
        WHEN description SIMILAR TO '.*(PFD|PREF).*' THEN 'preferred'
        WHEN description SIMILAR TO '.*(\bADR|\bADS|SPON).*' THEN 'depositary receipt'
        WHEN description SIMILAR TO '.*ACQ.*' THEN 'acquisition company'
        ELSE 'other'
    END AS kind,
    -- Five letters are traded over the counter; the last tells foreign shares (F), receipts (Y), warrants (W), units (U).
    length(symbol) AS symbol_length,
    CASE WHEN length(symbol) >= 5 THEN right(symbol, 1) ELSE 'exchange' END AS symbol_suffix,
    getvariable('decision_date') - (SELECT max(settlement_date) FROM covered) AS days_since_published
FROM recent
