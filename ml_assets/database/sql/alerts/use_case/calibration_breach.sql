-- @title: Calibration breach
-- @severity: warning
-- @follows: performance
-- @deadline: 4 days
-- @description: Probabilities are off by more than 0.02 on average, even at the low end of the interval. Expected costs are off as well.
-- @runbook: calibration-breach
-- @message: the calibration error is {error|metric} (at least {low|metric}) for outcomes until {until}
-- @keep_firing_for: 2 days
-- @data: EXISTS (SELECT FROM performance)
WITH newest AS (
    SELECT outcome_date AS until, measured AS error, low
    FROM performance WHERE dimension = 'all' AND metric = 'calibration_error' AND judged
    ORDER BY outcome_date DESC LIMIT 1
)
SELECT * FROM newest WHERE low > 0.02
