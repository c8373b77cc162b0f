-- @title: Champion degrading
-- @severity: warning
-- @follows: performance
-- @deadline: 4 days
-- @description: The PR-AUC of the newest monitoring window, even at the high end of its interval, is below the low end of that of a window that ended about a month before. By chance alone the two intervals would not lie apart.
-- @runbook: champion-degrading
-- @message: PR-AUC {pr_auc|metric} (at most {high|metric}) for outcomes until {until}; it was {before|metric} (at least {low_before|metric}) a month earlier
-- @keep_firing_for: 2 days
-- @data: EXISTS (SELECT FROM performance)
WITH windows AS (
    SELECT outcome_date, measured, low, high
    FROM performance WHERE dimension = 'all' AND metric = 'pr_auc' AND judged
),
newest AS (
    SELECT * FROM windows ORDER BY outcome_date DESC LIMIT 1
),
before AS (
    SELECT windows.* FROM windows CROSS JOIN newest
    WHERE windows.outcome_date BETWEEN newest.outcome_date - 42 AND newest.outcome_date - 28
    ORDER BY windows.outcome_date DESC LIMIT 1
)
SELECT
    newest.outcome_date AS until, newest.measured AS pr_auc, newest.high, before.measured AS before,
    before.low AS low_before
FROM newest CROSS JOIN before
WHERE newest.high < before.low
