-- @title: Canary taken back
-- @severity: warning
-- @every: 15 minutes
-- @description: The guard of the scoring service has ended a canary in the last day: the version did worse than the champion, or failed. The champion answers for all again.
-- @runbook: canary-taken-back
-- @message: version {version} was taken back at {ended|time} UTC: {reason}
-- @key: version
SELECT to_version::text AS version, max(recorded_at) AS ended, max(reason) AS reason
FROM promotions CROSS JOIN report
WHERE action = 'canary_ended' AND NOT is_person AND recorded_at > report.as_of - INTERVAL '1 day'
GROUP BY to_version
