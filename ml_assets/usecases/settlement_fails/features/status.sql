-- @entity: instruction, and its security (isin)
-- @as_of: newest status, position and fee by event time, known at the decision
-- @owner: settlement-operations
--
-- The newest matching status of each instruction, and the inventory and lending market of its security.
WITH matching AS (
    SELECT instruction_id, arg_max(status, event_time) AS status
    FROM settlement_status SEMI JOIN decisions ON decisions.entity_id = settlement_status.instruction_id
    WHERE status IN ('MACH', 'NMAT')
    GROUP BY instruction_id
),
inventory AS (
    SELECT isin, arg_max(available_quantity, event_time) AS available_quantity
    FROM inventory_positions GROUP BY isin
),
lending AS (
    SELECT isin, arg_max(fee_bp, event_time) AS fee_bp FROM securities_lending GROUP BY isin
)
SELECT
    entity_id,
    coalesce(matching.status, 'NONE') AS matching_status,
    (matching.status IS NOT DISTINCT FROM 'NMAT' AND d.outcome_date = getvariable('decision_date'))::INT
        AS unmatched_on_isd,
    (inventory.available_quantity < 0 AND d.movement = 'DELI')::INT AS lacks_inventory,
    ln(greatest(lending.fee_bp, 0.01)) AS log_borrowing_fee,
    3 * (coalesce(matching.status, 'NONE') = 'NMAT')::INT
        + 2 * (coalesce(inventory.available_quantity, 0) < 0 AND d.movement = 'DELI')::INT
        + 2 * d.differs_from_ssi + d.instructed_late
        -- An unknown fee gives no points; `least` would skip the NULL and give all.
        + least(1.9, coalesce(lending.fee_bp, 0) / 100) AS checklist_points
FROM decisions AS d
LEFT JOIN matching ON matching.instruction_id = d.entity_id
LEFT JOIN inventory ON inventory.isin = d.isin
LEFT JOIN lending ON lending.isin = d.isin
