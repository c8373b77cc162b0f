-- @title: Runs failed
-- @severity: warning
-- @every: 15 minutes
-- @description: The newest run of a job and use case in the last day has failed, or was lost with its pod. One that failed and succeeded when it was tried again is over.
-- @runbook: runs-failed
-- @message: {job}: {failed} runs in a row have failed, the newest at {ended|time} UTC{cause}
-- @key: job
WITH ended AS (
    SELECT
        runs.*,
        row_number() OVER (PARTITION BY job ORDER BY queued_at DESC) AS place,
        min(CASE WHEN status = 'SUCCESS' THEN 0 END) OVER (
            PARTITION BY job ORDER BY queued_at DESC ROWS UNBOUNDED PRECEDING) AS after_success
    FROM runs JOIN report ON queued_at > report.as_of - INTERVAL '1 day'
    WHERE status IN ('SUCCESS', 'FAILURE')
)
SELECT
    job,
    count(*) AS failed,
    max(ended_at) AS ended,
    coalesce(': ' || max(failure) FILTER (WHERE place = 1), '') AS cause
FROM ended
WHERE after_success IS NULL
GROUP BY job
