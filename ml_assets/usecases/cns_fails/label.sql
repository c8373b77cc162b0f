-- 1 if the balance of the security on the outcome date is worth more than 100,000 USD, 0 if it is not or there is none.
--
-- A date that no published file covers has no outcome, and neither has a balance that never had a price.
WITH priced AS (
    SELECT
        symbol,
        settlement_date,
        quantity,
        coalesce(
            price,
            last_value(price IGNORE NULLS) OVER (PARTITION BY symbol ORDER BY settlement_date, event_id)
        ) AS price
    FROM cns_fails
    WHERE settlement_date <= getvariable('decision_date')
      AND symbol IN (SELECT symbol FROM cns_fails WHERE settlement_date = getvariable('decision_date'))
),
balances AS (
    SELECT symbol AS entity_id, count(*) = count(price) AS known, sum(quantity * price) AS value
    FROM priced
    WHERE settlement_date = getvariable('decision_date')
    GROUP BY symbol
)
SELECT
    entity_id,
    CASE WHEN balances.entity_id IS NULL THEN 0 WHEN value > 100000 THEN 1 WHEN known THEN 0 END AS label
FROM (SELECT DISTINCT entity_id FROM decisions) AS decided
LEFT JOIN balances USING (entity_id)
WHERE EXISTS (SELECT 1 FROM cns_fails WHERE settlement_date = getvariable('decision_date'))
