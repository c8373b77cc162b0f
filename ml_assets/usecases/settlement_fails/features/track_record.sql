-- @entity: asset class and counterparty (counterparty_lei)
-- @as_of: outcomes of settlement dates before the decision date, 60 days back, known at the decision
-- @owner: settlement-operations
--
-- How often asset classes and counterparties have failed, from outcomes known by now.
--
-- Only instructions whose settlement date is over count, open ones say nothing yet. A counterparty is compared with
-- what its asset classes alone would let expect (indirect standardisation), as if 3 more fails had been expected and
-- seen (additive smoothing): one of which little is known counts as average.
WITH outcomes AS (
    SELECT
        i.counterparty_lei,
        securities.asset_class,
        (failed.instruction_id IS NOT NULL)::INT AS failed
    FROM settlement_instructions AS i
    LEFT JOIN securities USING (isin)
    LEFT JOIN (
        SELECT DISTINCT instruction_id FROM settlement_status WHERE status = 'PENF'
    ) AS failed USING (instruction_id)
    WHERE i.intended_settlement_date < getvariable('decision_date')
),
classes AS (
    SELECT asset_class, (sum(failed) + 1) / (count(*) + 20) AS rate FROM outcomes GROUP BY asset_class
),
counterparties_compared AS (
    SELECT counterparty_lei, ln((sum(failed) + 3) / (sum(classes.rate) + 3)) AS relative_rate
    FROM outcomes JOIN classes USING (asset_class)
    GROUP BY counterparty_lei
)
SELECT
    entity_id,
    c.relative_rate AS counterparty_relative_rate,
    ln(classes.rate / (1 - classes.rate)) + coalesce(c.relative_rate, 0) AS prior_log_odds
FROM decisions
LEFT JOIN counterparties_compared AS c USING (counterparty_lei)
LEFT JOIN classes USING (asset_class)
