-- 1 if less than the instructed quantity was settled by the cut-off of the place of settlement on the intended
-- settlement date, else 0. One that was cancelled by then has no outcome.
WITH due AS (
    SELECT i.instruction_id, i.quantity, i.intended_settlement_date + cut_offs.cut_off::TIME AS cut_off
    FROM settlement_instructions AS i
    -- One that has been amended to settle on another date has no outcome on this one.
    SEMI JOIN decisions
        ON decisions.entity_id = i.instruction_id AND decisions.outcome_date = i.intended_settlement_date
    JOIN cut_offs USING (pset)
),
cancelled AS (
    SELECT DISTINCT due.instruction_id
    FROM due JOIN settlement_status AS s USING (instruction_id)
    WHERE s.status IN ('CANC', 'CAND') AND s.event_time <= due.cut_off
)
SELECT due.instruction_id AS entity_id, (coalesce(sum(c.quantity), 0) < any_value(due.quantity))::INT AS label
FROM due
ANTI JOIN cancelled USING (instruction_id)
LEFT JOIN settlement_confirmations AS c
    ON c.instruction_id = due.instruction_id AND c.event_time <= due.cut_off
GROUP BY due.instruction_id
