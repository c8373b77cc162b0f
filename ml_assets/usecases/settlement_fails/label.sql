-- 1 if less than the instructed quantity was settled by the cut-off of the place of settlement on the intended
-- settlement date, else 0.
WITH due AS (
    SELECT i.instruction_id, i.quantity, i.intended_settlement_date + cut_offs.cut_off::TIME AS cut_off
    FROM settlement_instructions AS i
    SEMI JOIN decisions ON decisions.entity_id = i.instruction_id
    JOIN cut_offs USING (pset)
)
SELECT due.instruction_id AS entity_id, (coalesce(sum(c.quantity), 0) < any_value(due.quantity))::INT AS label
FROM due
LEFT JOIN settlement_confirmations AS c
    ON c.instruction_id = due.instruction_id AND c.event_time <= due.cut_off
GROUP BY due.instruction_id
