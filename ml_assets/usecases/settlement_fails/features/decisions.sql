-- @entity: instruction (instruction_id)
-- @as_of: the newest version known of the instruction; cancellations, settled quantities and the reference data in force by then
-- @owner: settlement-operations
--
-- Open instructions at their decision slot: in the evening of the trade date, on the afternoon before the intended
-- settlement date (ISD), and on its morning. One that has been cancelled (CANC, CAND) is open no more, and neither is one
-- whose cut-off has passed. Days are business days of the place of settlement: on others nothing is decided about it.
--
-- What a fail costs: the cash penalty a day, and funding at 3 % a year, of the value, for the usual 2 days late.
WITH today AS MATERIALIZED (
    SELECT place, next FROM place_days WHERE business_date = getvariable('decision_date')
),
open_instructions AS (
    SELECT i.*
    FROM settlement_instructions AS i JOIN today ON today.place = i.pset
    WHERE CASE getvariable('slot')
        WHEN 'end_of_trade_date' THEN i.trade_date = getvariable('decision_date')
        WHEN 'isd_minus_1' THEN i.intended_settlement_date = today.next
        WHEN 'isd_morning' THEN i.intended_settlement_date = getvariable('decision_date')
    END
),
cancelled AS (
    SELECT DISTINCT instruction_id FROM settlement_status WHERE status IN ('CANC', 'CAND')
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
ANTI JOIN cancelled USING (instruction_id)
LEFT JOIN settled ON settled.instruction_id = o.instruction_id
LEFT JOIN securities ON securities.isin = o.isin
LEFT JOIN counterparties ON counterparties.lei = o.counterparty_lei
LEFT JOIN standing_settlement_instructions AS ssi ON ssi.lei = o.counterparty_lei AND ssi.pset = o.pset
LEFT JOIN cut_offs ON cut_offs.pset = o.pset
LEFT JOIN penalty_rates ON penalty_rates.asset_class = securities.asset_class
WHERE coalesce(settled.quantity, 0) < o.quantity
  AND (cut_offs.cut_off IS NULL
      OR getvariable('as_of')::TIMESTAMP < o.intended_settlement_date + cut_offs.cut_off::TIME)
