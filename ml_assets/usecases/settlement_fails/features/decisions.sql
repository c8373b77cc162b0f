-- @entity: instruction (instruction_id)
-- @as_of: the instruction as first known; settled quantities and the reference data in force at the decision
-- @owner: settlement-operations
--
-- Open instructions at their decision slot: in the evening of the trade date, on the afternoon before the intended
-- settlement date (ISD), and on its morning.
--
-- What a fail costs: the cash penalty a day, and funding at 3 % a year, of the value, for the usual 2 days late.
WITH open_instructions AS (
    SELECT *
    FROM settlement_instructions
    WHERE CASE getvariable('slot')
        WHEN 'end_of_trade_date' THEN trade_date = getvariable('decision_date')
        WHEN 'isd_minus_1' THEN intended_settlement_date = (
            SELECT next FROM business_days WHERE business_date = getvariable('decision_date')
        )
        WHEN 'isd_morning' THEN intended_settlement_date = getvariable('decision_date')
    END
),
settled AS (
    SELECT instruction_id, sum(quantity) AS quantity FROM settlement_confirmations GROUP BY instruction_id
)
SELECT
    o.instruction_id AS entity_id,
    o.intended_settlement_date AS outcome_date,
    o.amount * (coalesce(penalty_rates.bp_per_day, 0.5) / 10000 + 0.03 / 360) * 2 AS cost_if_fail,
    json_object(
        'security', securities.name,
        'isin', o.isin,
        'market', securities.mic,
        'counterparty', counterparties.name,
        'counterparty_tier', counterparties.tier,
        'movement', o.movement,
        'amount', round(o.amount),
        'pset', o.pset,
        'cut_off', cut_offs.cut_off
    )::VARCHAR AS attributes,
    o.isin,
    o.counterparty_lei,
    o.movement,
    securities.asset_class,
    ln(o.amount) AS log_amount,
    (o.account IS DISTINCT FROM ssi.account)::INT AS differs_from_ssi,
    (o.event_time::DATE > o.trade_date)::INT AS instructed_late
FROM open_instructions AS o
LEFT JOIN settled ON settled.instruction_id = o.instruction_id
LEFT JOIN securities ON securities.isin = o.isin
LEFT JOIN counterparties ON counterparties.lei = o.counterparty_lei
LEFT JOIN standing_settlement_instructions AS ssi ON ssi.lei = o.counterparty_lei AND ssi.pset = o.pset
LEFT JOIN cut_offs ON cut_offs.pset = o.pset
LEFT JOIN penalty_rates ON penalty_rates.asset_class = securities.asset_class
WHERE coalesce(settled.quantity, 0) < o.quantity
