-- @title: Alerts of the month
-- @cadence: monthly
-- @as_of: end of day
-- @description: What the ledger of alerts recorded of the use case in the month, for model risk: each alert that opened, for how long, whether somebody took it on, and whether people could be told. The database adds lines and refuses to change them. An alert that is open at the end of the report's date has been open until then; of several the median is told.
-- @summary: {month}: alerts opened: {opened}, of {rules} rules; taken on by a person: {acknowledged}, open at the end: {open_at_end}, messages not delivered: {given_up}.
-- @empty: {month}: no alert of this use case has opened.
-- @column: rules | Rules | count
-- @column: rule | Rule | code
-- @column: severity | Severity | code
-- @column: opened | Opened | count
-- @column: acknowledged | Taken on | count
-- @column: open_at_end | Open at the end | count
-- @column: given_up | Not delivered | count
-- @column: median_hours | Open for | hours
-- @column: opened_at | Opened at | time
-- @column: closed_at | Closed at | time
-- @column: key | Of | text
-- @column: message | Message | text
-- @column: taken_on_after | Taken on after | hours
-- @column: actor | By | text
-- @column: reason | What they said | text
-- @plot: bars | by rule | rule | opened, acknowledged
WITH opened AS (
    SELECT o.event_id, o.id, o.at AS opened_at, o.rule, o.severity, o.key, o.message, report.as_of
    FROM alert_events AS o JOIN report ON o.at >= report.month::timestamptz
    WHERE o.what = 'opened' AND o.at <= report.as_of
),
told AS (
    SELECT
        opened.*,
        closed.at AS closed_at,
        taken.at AS taken_at, taken.actor, taken.reason,
        extract(epoch FROM coalesce(closed.at, opened.as_of) - opened_at) / 3600 AS hours,
        (SELECT count(*) FROM alert_events AS e WHERE e.what = 'given up' AND e.about = opened.event_id) AS given_up
    FROM opened
    LEFT JOIN alert_events AS closed ON closed.what = 'closed' AND closed.about = opened.event_id
    LEFT JOIN LATERAL (
        SELECT e.at, e.actor, e.reason FROM alert_events AS e
        WHERE e.what = 'acknowledged' AND e.about = opened.event_id ORDER BY e.id LIMIT 1
    ) AS taken ON true
),
added AS (
    SELECT
        GROUPING(rule) AS whole,
        rule,
        CASE WHEN GROUPING(rule) = 0 THEN min(severity) END AS severity,
        count(DISTINCT rule) AS rules,
        count(*) AS opened,
        count(taken_at) AS acknowledged,
        count(*) FILTER (WHERE closed_at IS NULL) AS open_at_end,
        sum(given_up)::bigint AS given_up,
        (percentile_disc(0.5) WITHIN GROUP (ORDER BY hours))::numeric AS median_hours
    FROM told
    GROUP BY GROUPING SETS ((), (rule))
    HAVING count(*) > 0
)
SELECT
    section, rules, rule, severity, opened, acknowledged, open_at_end, given_up, median_hours, opened_at, closed_at, key,
    message, taken_on_after, actor, reason
FROM (
    SELECT
        CASE whole WHEN 1 THEN 'in all' ELSE 'by rule' END AS section,
        CASE WHEN whole = 1 THEN rules END AS rules,
        rule, severity, opened, acknowledged, open_at_end, given_up, median_hours,
        NULL::timestamptz AS opened_at, NULL::timestamptz AS closed_at, NULL::text AS key, NULL::text AS message,
        NULL::numeric AS taken_on_after, NULL::text AS actor, NULL::text AS reason, NULL::bigint AS line
    FROM added
    UNION ALL
    SELECT
        'each alert', NULL, rule, severity, NULL, NULL, NULL, NULL, hours::numeric, opened_at, closed_at, key, message,
        extract(epoch FROM taken_at - opened_at)::numeric / 3600, actor, reason, id
    FROM told
) AS rows
ORDER BY line NULLS FIRST, rules NULLS LAST, opened DESC, rule COLLATE "C"
