-- @entity: instruction, and its security (isin)
-- @as_of: newest status, position and fee by event time, known at the decision
-- @owner: settlement-operations
--
-- The newest matching status of each instruction, whether it is on hold, and the inventory and lending market of its
-- security.
--
-- Matching and holds are told apart: an instruction on hold matches too. It is on hold if that (PREA) is the reason of the
-- newest status of those that say why it is pending; a release is told as a status with another reason, or with none.
WITH statuses AS (
    SELECT
        instruction_id,
        arg_max(status, event_time) FILTER (WHERE status IN ('MACH', 'NMAT')) AS matching,
        -- Not of the reason itself: arg_max skips a NULL, and with it the release.
        arg_max(reason IS NOT DISTINCT FROM 'PREA', event_time) FILTER (WHERE status IN ('PEND', 'PENF')) AS on_hold
    FROM settlement_status SEMI JOIN decisions ON decisions.entity_id = settlement_status.instruction_id
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
    coalesce(s.matching, 'NONE') AS matching_status,
    (s.matching IS NOT DISTINCT FROM 'NMAT' AND d.outcome_date = getvariable('decision_date'))::INT AS unmatched_on_isd,
    CASE WHEN s.on_hold THEN getvariable('slot') ELSE 'NONE' END AS on_hold_at,
    (inventory.available_quantity < 0 AND d.movement = 'DELI')::INT AS lacks_inventory,
    (inventory.available_quantity < 0 AND d.movement = 'DELI' AND d.outcome_date = getvariable('decision_date'))::INT
        AS lacks_inventory_on_isd,
    ln(greatest(lending.fee_bp, 0.01)) AS log_borrowing_fee,
    3 * (coalesce(s.matching, 'NONE') = 'NMAT')::INT
        + 2 * coalesce(s.on_hold, false)::INT
        + 2 * (coalesce(inventory.available_quantity, 0) < 0 AND d.movement = 'DELI')::INT
        + 2 * d.differs_from_ssi + d.instructed_late
        -- An unknown fee gives no points; `least` would skip the NULL and give all.
        + least(1.9, coalesce(lending.fee_bp, 0) / 100) AS checklist_points
FROM decisions AS d
LEFT JOIN statuses AS s ON s.instruction_id = d.entity_id
LEFT JOIN inventory ON inventory.isin = d.isin
LEFT JOIN lending ON lending.isin = d.isin
