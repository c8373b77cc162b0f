-- @title: Lander behind
-- @severity: critical
-- @every: 15 minutes
-- @description: A topic that landed in the last week has not landed up to the last hour: the lander is down, not ready, or slower than its topic. A topic that is quiet counts as landed, since the lander notes that it has seen its end.
-- @runbook: lander-behind
-- @message: topic {topic} has landed until {landed_until|time} UTC, {hours|hours} hours ago
-- @key: topic
-- @for: 15 minutes
SELECT topic, landed_until, extract(epoch FROM report.as_of - landed_until) / 3600 AS hours
FROM landing CROSS JOIN report
WHERE landed_until < report.as_of - INTERVAL '1 hour' AND landed_until > report.as_of - INTERVAL '7 days'
