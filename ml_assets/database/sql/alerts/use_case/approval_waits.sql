-- @title: Request for approval waiting
-- @severity: warning
-- @every: 1 hour
-- @description: Somebody asked to promote a model more than a day ago, and nobody has approved or declined. Until then the champion of before scores.
-- @runbook: request-for-approval-waiting
-- @message: version {version} has waited for approval for {hours_open|hours} hours
-- @key: version
WITH newest AS (
    SELECT * FROM promotions WHERE action <> 'registered' ORDER BY id DESC LIMIT 1
)
SELECT to_version::text AS version, extract(epoch FROM report.as_of - recorded_at) / 3600 AS hours_open
FROM newest CROSS JOIN report
WHERE action = 'requested' AND recorded_at < report.as_of - INTERVAL '1 day'
