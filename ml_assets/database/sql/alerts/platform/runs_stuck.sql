-- @title: Runs stuck
-- @severity: warning
-- @every: 15 minutes
-- @description: A run has been at work for more than three hours, or has waited in the queue or for its start for more than one.
-- @runbook: runs-stuck
-- @message: {job}, run {run_id}: {status} for {hours|hours} hours
-- @key: run_id
WITH waiting AS (
    SELECT
        run_id, job, lower(status) AS status,
        extract(epoch FROM report.as_of - coalesce(started_at, queued_at)) / 3600 AS hours,
        CASE WHEN started_at IS NULL THEN 1 ELSE 3 END AS at_most
    FROM runs CROSS JOIN report
    WHERE status IN ('QUEUED', 'NOT_STARTED', 'STARTING', 'STARTED', 'CANCELING')
)
SELECT * FROM waiting WHERE hours > at_most
