-- The work-list: what to act on for an outcome date, dearest first.
--
-- The rule of predictions/work_list.py: one row for each entity, its latest decision, by the model that speaks for that
-- decision time, unless a later scoring decided everything open of the outcome date. Readers cut the list at the
-- team's capacity and where acting costs more than it saves, which are in the use case and not in the database.
--
-- DISTINCT ON and the windows start with (use_case, outcome_date), so PostgreSQL pushes a reader's filter on those two
-- down to the index. Since when an outcome date is decided is asked for its first row alone, by CASE: a join was asked
-- again for each row where statistics are older than the date, as they are every morning.
SELECT
    use_case,
    outcome_date,
    row_number() OVER (
        PARTITION BY use_case, outcome_date ORDER BY expected_cost DESC, entity_id COLLATE "C"
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
    model_version,
    mlflow_run_id
FROM (
    SELECT numbered.*, max(
        CASE WHEN number = 1 THEN (
            SELECT max(scorings.decision_time)
            FROM scorings
            WHERE scorings.use_case = numbered.use_case AND scorings.decides @> numbered.outcome_date
        ) END
    ) OVER (PARTITION BY use_case, outcome_date) AS decided_since
    FROM (
        SELECT latest.*, row_number() OVER (PARTITION BY use_case, outcome_date) AS number
        FROM (
            SELECT DISTINCT ON (use_case, outcome_date, entity_id) predictions.*
            FROM predictions
            JOIN scorings USING (use_case, decision_time, mlflow_run_id)
            ORDER BY use_case, outcome_date, entity_id, decision_time DESC
        ) AS latest
    ) AS numbered
) AS listed
WHERE decided_since IS NULL OR decision_time >= decided_since
