-- The work-list: what to act on for an outcome date, dearest first.
--
-- The rule of predictions/work_list.py: one row for each entity, its latest decision, by the model that speaks for that
-- decision time, unless a later scoring decided everything open of the outcome date. Readers cut the list at the
-- team's capacity and where acting costs more than it saves, which are in the use case and not in the database.
--
-- DISTINCT ON and the window both start with (use_case, outcome_date), so PostgreSQL pushes a reader's filter on
-- those two down to the index.
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
    SELECT DISTINCT ON (use_case, outcome_date, entity_id) predictions.*
    FROM predictions
    JOIN scorings USING (use_case, decision_time, mlflow_run_id)
    ORDER BY use_case, outcome_date, entity_id, decision_time DESC
) AS latest
LEFT JOIN (
    -- Grouped, so that it is asked once for each outcome date and not for each row.
    SELECT dates.use_case, dates.outcome_date, max(scorings.decision_time) AS since
    FROM (SELECT DISTINCT use_case, outcome_date FROM predictions) AS dates
    JOIN scorings ON scorings.use_case = dates.use_case AND scorings.decides @> dates.outcome_date
    GROUP BY dates.use_case, dates.outcome_date
) AS decided USING (use_case, outcome_date)
WHERE decided.since IS NULL OR latest.decision_time >= decided.since
