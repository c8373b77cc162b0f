-- @title: Retraining refused for a week
-- @severity: warning
-- @follows: retraining_decision
-- @deadline: 4 days
-- @description: For a week the model has come out other than it was estimated, often enough to retrain out of turn, and each day a brake has held that back; or the rule has given up and asks a person.
-- @runbook: retraining-refused-for-a-week
-- @message: out of turn retraining was held back on {dates} dates since {since}; the newest says: {reason}
-- @keep_firing_for: 1 day
WITH week AS (
    SELECT
        decision_date,
        outcome,
        reason,
        (numbers ->> 'breaches')::integer >= (numbers ->> 'breaches asked')::integer AS asked,
        row_number() OVER (ORDER BY decision_date DESC) = 1 AS is_newest
    FROM retraining_decisions JOIN report ON decision_date > report.date - 7
)
SELECT
    count(*) FILTER (WHERE asked AND outcome <> 'retrain') AS dates,
    min(decision_date) FILTER (WHERE asked) AS since,
    max(reason) FILTER (WHERE is_newest) AS reason
FROM week
HAVING (count(*) >= 5 AND bool_and(asked AND outcome <> 'retrain')) OR bool_or(is_newest AND outcome = 'ask a person')
