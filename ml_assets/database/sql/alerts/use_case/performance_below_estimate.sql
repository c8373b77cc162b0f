-- @title: Performance below its estimate
-- @severity: warning
-- @follows: performance
-- @deadline: 4 days
-- @description: On three of the newest five complete outcome dates fewer fails were found (PR-AUC) than the band of the estimate leaves open. The probabilities do not hold any more.
-- @runbook: performance-below-its-estimate
-- @message: PR-AUC was below its band on {below} of {dates} dates, on {newest} {realised|metric} where at least {low|metric} was expected
-- @keep_firing_for: 2 days
-- @data: EXISTS (SELECT FROM estimates WHERE realised IS NOT NULL)
WITH dates AS (
    SELECT outcome_date, realised, low, realised < low AS is_below
    FROM estimates WHERE metric = 'pr_auc' AND realised IS NOT NULL AND low IS NOT NULL
    ORDER BY outcome_date DESC LIMIT 5
),
newest AS (
    SELECT * FROM dates WHERE is_below ORDER BY outcome_date DESC LIMIT 1
)
SELECT
    (SELECT count(*) FROM dates WHERE is_below) AS below,
    (SELECT count(*) FROM dates) AS dates,
    outcome_date AS newest,
    realised,
    low
FROM newest
WHERE (SELECT count(*) FROM dates WHERE is_below) >= 3
