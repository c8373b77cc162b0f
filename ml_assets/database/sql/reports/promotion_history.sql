-- @title: Promotions of the month
-- @cadence: monthly
-- @as_of: end of day
-- @description: What the ledger recorded in the month, for model risk: every line, who acted, why, and on which evidence. The database adds lines and refuses to change them. A version was in force from its promotion, rollback or confirmation to the next; of the last one the days are counted to the end of the report's date.
-- @summary: {month}: models registered: {registered}, promoted: {promoted}, rolled back: {rolled_back}; requests: {requested}, declined: {declined}. In force at the end: version {to_version}.
-- @empty: {month}: the ledger has no line of this use case yet.
-- @column: registered | Registered | count
-- @column: requested | Requests | count
-- @column: declined | Declined | count
-- @column: promoted | Promoted | count
-- @column: rolled_back | Rolled back | count
-- @column: restored | Confirmed | count
-- @column: canaries | Canaries | count
-- @column: taken_back | Canaries taken back | count
-- @column: line | Line | count
-- @column: recorded_at | Recorded | time
-- @column: action | What | code
-- @column: from_version | Version before | code
-- @column: to_version | Version | code
-- @column: share | Canary's share | share
-- @column: actor | By | text
-- @column: is_person | A person | code
-- @column: reason | Why | text
-- @column: answers | Answers line | count
-- @column: hours_open | Request open for | hours
-- @column: in_force_days | Days in force | expected count
-- @column: mlflow_run_id | MLflow run | hash
-- @column: evidence | Evidence (SHA-256) | hash
WITH lines AS (
    SELECT
        promotions.*,
        action IN ('promoted', 'rolled_back', 'restored') AS makes_champion,
        extract(epoch FROM recorded_at - first_value(recorded_at) OVER (
            PARTITION BY coalesce(request_id, id) ORDER BY id)) / 3600 AS hours_open
    FROM promotions
),
in_force AS (
    SELECT
        id,
        extract(epoch FROM least(lead(recorded_at) OVER (ORDER BY id), report.as_of) - recorded_at) / 86400
            AS in_force_days
    FROM lines CROSS JOIN report WHERE makes_champion
),
of_month AS (
    SELECT lines.*, in_force.in_force_days
    FROM lines JOIN report ON lines.recorded_at >= report.month::timestamptz LEFT JOIN in_force USING (id)
),
whole AS (
    SELECT
        count(*) FILTER (WHERE action = 'registered') AS registered,
        count(*) FILTER (WHERE action = 'requested') AS requested,
        count(*) FILTER (WHERE action = 'declined') AS declined,
        count(*) FILTER (WHERE action = 'promoted') AS promoted,
        count(*) FILTER (WHERE action = 'rolled_back') AS rolled_back,
        count(*) FILTER (WHERE action = 'restored') AS restored,
        count(*) FILTER (WHERE action = 'canary') AS canaries,
        count(*) FILTER (WHERE action = 'canary_ended' AND NOT is_person) AS taken_back
    FROM of_month
)
SELECT
    'in all' AS section,
    whole.*,
    NULL::bigint AS line,
    NULL::timestamptz AS recorded_at,
    NULL::text AS action,
    NULL::text AS from_version,
    (SELECT to_version::text FROM lines WHERE makes_champion ORDER BY id DESC LIMIT 1) AS to_version,
    NULL::double precision AS share,
    NULL::text AS actor,
    NULL::boolean AS is_person,
    NULL::text AS reason,
    NULL::bigint AS answers,
    NULL::numeric AS hours_open,
    NULL::numeric AS in_force_days,
    NULL::text AS mlflow_run_id,
    NULL::text AS evidence
FROM whole
WHERE EXISTS (SELECT FROM lines)
UNION ALL
(
    SELECT
        'lines of the ledger', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        id, recorded_at, replace(action, '_', ' '), from_version::text, to_version::text, share, actor, is_person,
        reason, request_id, CASE WHEN request_id IS NOT NULL THEN hours_open END, in_force_days, mlflow_run_id, evidence_hash
    FROM of_month
    ORDER BY id
)
ORDER BY line NULLS FIRST
