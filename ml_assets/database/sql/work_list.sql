-- The work-list: what to act on for an outcome date, dearest first.
--
-- One row an entity: its latest decision, by the model version that speaks for that decision time. Readers cut the
-- list at the team's capacity, which is in the use case and not in the database.
--
-- DISTINCT ON and the window both start with (use_case, outcome_date), so PostgreSQL pushes a reader's filter on
-- those two down to the index.
SELECT
    use_case,
    outcome_date,
    row_number() OVER (
        PARTITION BY use_case, outcome_date ORDER BY expected_cost DESC, entity_id
    )::integer AS priority,
    entity_id,
    decision_time,
    slot,
    probability,
    cost_if_fail,
    expected_cost,
    reason_codes,
    attributes,
    model_name,
    model_version
FROM (
    SELECT DISTINCT ON (use_case, outcome_date, entity_id) predictions.*
    FROM predictions
    JOIN scorings USING (use_case, decision_time, model_version)
    ORDER BY use_case, outcome_date, entity_id, decision_time DESC
) AS latest
