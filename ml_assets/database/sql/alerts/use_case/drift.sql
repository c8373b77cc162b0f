-- @title: Drift
-- @severity: warning
-- @follows: drift
-- @deadline: 4 days
-- @description: Columns, causes, volumes, feeds or groups of the newest decision date have drifted: they breached their limits on enough of the last dates, or are gone altogether. One alert for each kind; the message names what has moved the mean log-odds most.
-- @runbook: drift
-- @message: {kind}, {date}: {drifted|count} of {judged|count} measures have drifted, first {first}
-- @key: kind
-- @keep_firing_for: 1 day
-- @data: EXISTS (SELECT FROM drift WHERE judged)
WITH newest AS (
    SELECT drift.* FROM drift
    WHERE decision_date = (SELECT max(d.decision_date) FROM drift AS d JOIN report ON d.decision_date > report.date - 14)
),
numbered AS (
    SELECT
        newest.*,
        row_number() OVER (
            PARTITION BY kind ORDER BY drifted DESC, abs(coalesce(moved, 0)) DESC, name COLLATE "C", measure COLLATE "C"
        ) AS place
    FROM newest
    WHERE judged
)
SELECT
    kind,
    min(decision_date) AS date,
    count(*) FILTER (WHERE drifted) AS drifted,
    count(*) AS judged,
    max(CASE
        WHEN place > 1 THEN NULL
        WHEN why <> '' THEN name || ' (' || measure || '): ' || why
        ELSE name || ' (' || measure || ')'
    END) AS first
FROM numbered
GROUP BY kind
HAVING bool_or(drifted)
