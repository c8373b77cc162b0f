-- @entity: asset class and counterparty (counterparty_lei)
-- @as_of: outcomes of settlement dates before the decision date, 60 days back, known at the decision
-- @owner: settlement-operations
--
-- How often asset classes and counterparties have failed, from outcomes known by now.
--
-- Only instructions whose settlement date is over count, open ones say nothing yet. A counterparty is compared with
-- what its asset classes alone would let expect (indirect standardisation), as if 3 more fails had been expected and
-- seen (additive smoothing): one of which little is known counts as average.
WITH settled AS (
    SELECT counterparty_lei, asset_class, sum(instructions) AS instructions, sum(fails) AS fails
    FROM outcomes
    WHERE business_date >= getvariable('decision_date') - 60
      AND intended_settlement_date < getvariable('decision_date')
    GROUP BY counterparty_lei, asset_class
),
classes AS (
    SELECT asset_class, (sum(fails) + 1) / (sum(instructions) + 20) AS rate FROM settled GROUP BY asset_class
),
counterparties_compared AS (
    -- In order, since the last digit of a sum depends on it.
    SELECT
        counterparty_lei,
        ln((sum(fails) + 3) / (sum(instructions * classes.rate ORDER BY asset_class) + 3)) AS relative_rate
    FROM settled JOIN classes USING (asset_class)
    GROUP BY counterparty_lei
)
SELECT
    entity_id,
    c.relative_rate AS counterparty_relative_rate,
    ln(classes.rate / (1 - classes.rate)) + coalesce(c.relative_rate, 0) AS prior_log_odds
FROM decisions
LEFT JOIN counterparties_compared AS c USING (counterparty_lei)
LEFT JOIN classes USING (asset_class)
