-- How often counterparties, securities and asset classes have failed, from outcomes known by now.
--
-- Only instructions whose settlement date is over count, open ones say nothing yet. Rates are shrunk towards the
-- market's, as if some instructions at the market's rate had been seen beside (additive smoothing).
WITH due AS (
    SELECT
        i.instruction_id,
        i.counterparty_lei,
        i.isin,
        i.intended_settlement_date AS isd,
        securities.asset_class
    FROM settlement_instructions AS i
    LEFT JOIN securities USING (isin)
    WHERE i.intended_settlement_date < getvariable('decision_date')
),
outcomes AS (
    SELECT due.*, (failed.instruction_id IS NOT NULL)::INT AS failed
    FROM due LEFT JOIN (
        SELECT DISTINCT instruction_id FROM settlement_status WHERE status = 'PENF'
    ) AS failed USING (instruction_id)
),
classes AS (SELECT asset_class, avg(failed) AS rate FROM outcomes GROUP BY asset_class),
market AS (
    SELECT
        avg(failed) AS rate,
        avg(failed) FILTER (WHERE isd >= getvariable('decision_date') - INTERVAL 7 DAY) AS rate_7d
    FROM outcomes
),
-- Fails over what would be expected from the asset class alone.
compared AS (SELECT outcomes.*, classes.rate AS expected FROM outcomes LEFT JOIN classes USING (asset_class)),
counterparty AS (
    SELECT
        counterparty_lei,
        ln((sum(failed) + 3) / (sum(expected) + 3)) AS relative_rate,
        ln((sum(failed) FILTER (WHERE isd >= getvariable('decision_date') - INTERVAL 14 DAY) + 3)
            / (sum(expected) FILTER (WHERE isd >= getvariable('decision_date') - INTERVAL 14 DAY) + 3)
        ) AS relative_rate_14d
    FROM compared
    GROUP BY counterparty_lei
),
security AS (
    SELECT isin, ln((sum(failed) + 3) / (sum(expected) + 3)) AS relative_rate FROM compared GROUP BY isin
)
SELECT
    entity_id,
    counterparty.relative_rate AS counterparty_relative_rate,
    counterparty.relative_rate_14d AS counterparty_relative_rate_14d,
    security.relative_rate AS security_relative_rate,
    ln(classes.rate / (1 - classes.rate)) AS asset_class_log_odds,
    market.rate_7d AS market_fail_rate_7d
FROM decisions
CROSS JOIN market
LEFT JOIN counterparty USING (counterparty_lei)
LEFT JOIN security USING (isin)
LEFT JOIN classes USING (asset_class)
