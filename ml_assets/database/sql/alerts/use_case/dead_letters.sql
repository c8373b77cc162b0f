-- @title: Dead letters
-- @severity: warning
-- @every: 1 hour
-- @description: More than five messages of the newest two business dates break the contract of their event. They are kept, and nothing reads them.
-- @runbook: dead-letters
-- @message: {source}: {dead_letters|count} dead letters since {since}, beside {kept|count} events that were kept
-- @key: source
-- @keep_firing_for: 1 hour
WITH dates AS (
    SELECT quality.*, dense_rank() OVER (ORDER BY business_date DESC) AS place
    FROM quality JOIN report ON business_date <= report.date
)
SELECT source, min(business_date) AS since, sum(dead_letters)::bigint AS dead_letters, sum(kept)::bigint AS kept
FROM dates
WHERE place <= 2
GROUP BY source
HAVING sum(dead_letters) > 5
