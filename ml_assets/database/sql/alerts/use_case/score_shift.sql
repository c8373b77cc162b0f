-- @title: Scores have shifted
-- @severity: warning
-- @follows: predictions
-- @deadline: 4 days
-- @description: The mean probability of the newest decision date of a slot is more than four standard deviations, and more than a quarter, away from that of the 20 dates before. Inputs, model or market have changed.
-- @runbook: scores-have-shifted
-- @message: slot {slot}, {date}: the mean probability is {mean|share}; it was {usual|share} over {dates} dates
-- @key: slot
-- @keep_firing_for: 1 day
WITH means AS (
    SELECT slot, decision_date, sum(decisions * mean_probability) / sum(decisions) AS mean
    FROM scorings JOIN report ON decision_time > report.as_of - INTERVAL '42 days'
    WHERE decisions > 0
    GROUP BY slot, decision_date
),
numbered AS (
    SELECT means.*, row_number() OVER (PARTITION BY slot ORDER BY decision_date DESC) AS place FROM means
),
usual AS (
    SELECT slot, avg(mean) AS usual, stddev_samp(mean) AS spread, count(*) AS dates
    FROM numbered WHERE place BETWEEN 2 AND 21 GROUP BY slot
)
SELECT numbered.slot, numbered.decision_date AS date, numbered.mean, usual.usual, usual.dates
FROM numbered JOIN usual USING (slot)
WHERE numbered.place = 1 AND usual.dates >= 10
    AND abs(numbered.mean - usual.usual) > greatest(4 * usual.spread, 0.25 * usual.usual)
