-- @title: Answers dropped by the service
-- @severity: warning
-- @every: 15 minutes
-- @description: The scoring service has answered, or told of changed scores, in the last hour, and could not record it in Kafka: the queue was full, the broker refused, or the process was killed. Callers have their answers; the record of them has a gap.
-- @runbook: answers-dropped-by-the-service
-- @message: {topic}: {lost|count} events were not recorded in the last hour, on {services|count} pods ({why}), the last at {newest|time} UTC
-- @key: topic
-- @keep_firing_for: 1 hour
SELECT
    topic,
    sum(number)::bigint AS lost,
    count(DISTINCT service) AS services,
    string_agg(DISTINCT why, ', ' ORDER BY why) AS why,
    max(recorded_at) AS newest
FROM lost_answers JOIN report ON recorded_at > report.as_of - INTERVAL '1 hour'
GROUP BY topic
