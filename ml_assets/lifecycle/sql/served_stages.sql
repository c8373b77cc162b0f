-- What each stage of a use case said in the scoring service: how much, how fast, and how far from the champion.
--
-- `served` are landed scores. A shadow score holds until the next of its model on that decision, so each answer of the
-- champion is compared with the one that held then. A canary's answer is compared with the champion's last answer before
-- it. Log-odds are of probabilities within [0.001, 0.999], as the guard of the service has them.
WITH scores AS (
    SELECT
        *,
        ln(least(greatest(probability, 0.001), 0.999) / (1 - least(greatest(probability, 0.001), 0.999))) AS log_odds
    FROM served
), champion AS (
    SELECT * FROM scores WHERE stage = 'champion' AND NOT what_if
), shadow AS (
    SELECT * FROM scores WHERE stage = 'shadow'
), canary AS (
    SELECT * FROM scores WHERE stage = 'canary' AND NOT what_if
), shadowed AS (
    SELECT champion.*, runs.run_id
    FROM champion CROSS JOIN (SELECT DISTINCT mlflow_run_id AS run_id FROM shadow) AS runs
), pairs AS (
    SELECT 'shadow' AS stage, shadowed.run_id AS mlflow_run_id, shadow.log_odds - shadowed.log_odds AS difference
    FROM shadowed ASOF JOIN shadow
        ON shadow.mlflow_run_id = shadowed.run_id
        AND shadow.entity_id = shadowed.entity_id
        AND shadow.slot = shadowed.slot
        AND shadow.outcome_date = shadowed.outcome_date
        AND shadow.event_time <= shadowed.event_time
    UNION ALL
    SELECT 'canary', canary.mlflow_run_id, canary.log_odds - champion.log_odds
    FROM canary ASOF JOIN champion
        ON champion.entity_id = canary.entity_id
        AND champion.slot = canary.slot
        AND champion.outcome_date = canary.outcome_date
        AND champion.event_time <= canary.event_time
), differences AS (
    SELECT stage, mlflow_run_id, count(*) AS compared, avg(abs(difference)) AS log_odds_difference
    FROM pairs
    GROUP BY ALL
)
SELECT
    stage,
    model_version,
    mlflow_run_id,
    count(*) AS scores,
    count(DISTINCT request_id) FILTER (WHERE stage <> 'shadow') AS requests,
    count(DISTINCT entity_id) AS entities,
    count(*) FILTER (WHERE what_if) AS what_ifs,
    min(event_time) AS first_at,
    max(event_time) AS last_at,
    quantile_cont(latency_ms, 0.5) FILTER (WHERE stage <> 'shadow') AS p50_ms,
    quantile_cont(latency_ms, 0.99) FILTER (WHERE stage <> 'shadow') AS p99_ms,
    avg(probability) AS mean_probability,
    coalesce(compared, 0) AS compared,
    log_odds_difference
FROM scores
LEFT JOIN differences USING (stage, mlflow_run_id)
GROUP BY stage, model_version, mlflow_run_id, compared, log_odds_difference
ORDER BY CASE stage WHEN 'champion' THEN 0 WHEN 'canary' THEN 1 ELSE 2 END, last_at DESC
