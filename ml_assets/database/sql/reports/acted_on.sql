-- @title: What was acted on
-- @cadence: daily
-- @as_of: end of day
-- @description: The rows that the team was to act on with outcomes of the date, and what analysts said at the desk: acted on before the cut-off that they were shown, what came of it, and whether the reason was the one shown. What acting avoided is not told here: the control group measures it.
-- @summary: {date}: {in_time} of {listed} rows on the list were acted on before their cut-off ({share}); of {judged} reasons that were judged, {confirmed} were right.
-- @empty: {date}: nothing was on the list.
-- @column: cause | Reason shown | text
-- @column: really | What it really was | text
-- @column: listed | On the list | count
-- @column: in_time | Acted on in time | count
-- @column: share | Share in time | share
-- @column: late | Acted on too late | count
-- @column: cost | Expected cost of what was acted on | currency
-- @column: averted | Averted or partly | count
-- @column: in_vain | In vain | count
-- @column: no_problem | Was no problem | count
-- @column: judged | Reasons judged | count
-- @column: confirmed | Of them right | count
-- @plot: bars | by reason | cause | listed, in_time
WITH listed AS (
    SELECT
        coalesce(shown.name, w.reason_codes ->> 'name', 'none stands out') AS cause,
        CASE WHEN acted_on.cause IS NOT NULL THEN coalesce(really.name, 'something else') END AS really,
        acted_on.acted_at,
        acted_on.in_time,
        acted_on.result,
        w.expected_cost::numeric AS expected_cost,
        acted_on.cause = coalesce(acted_on.shown_cause, w.reason_codes ->> 'cause') AS is_confirmed
    FROM work_list AS w
    JOIN report ON w.outcome_date = report.date AND w.priority <= report.capacity
    LEFT JOIN acted_on ON acted_on.outcome_date = w.outcome_date AND acted_on.entity_id = w.entity_id
    LEFT JOIN causes AS shown ON shown.code = acted_on.shown_cause
    LEFT JOIN causes AS really ON really.code = acted_on.cause
),
added AS (
    SELECT
        CASE WHEN GROUPING(cause) = 1 THEN 'in all' WHEN GROUPING(listed.really) = 1 THEN 'by reason' ELSE 'what it really was' END
            AS section,
        cause,
        CASE WHEN GROUPING(listed.really) = 0 THEN listed.really END AS really,
        count(*) AS listed,
        count(*) FILTER (WHERE in_time) AS in_time,
        count(*) FILTER (WHERE in_time)::numeric / nullif(count(*), 0) AS share,
        count(*) FILTER (WHERE acted_at IS NOT NULL AND NOT in_time) AS late,
        sum(expected_cost) FILTER (WHERE acted_at IS NOT NULL) AS cost,
        count(*) FILTER (WHERE result IN ('averted', 'partly averted')) AS averted,
        count(*) FILTER (WHERE result = 'in vain') AS in_vain,
        count(*) FILTER (WHERE result = 'was no problem') AS no_problem,
        count(listed.really) AS judged,
        count(*) FILTER (WHERE is_confirmed) AS confirmed
    FROM listed
    GROUP BY GROUPING SETS ((), (cause), (cause, listed.really))
    HAVING count(*) > 0
)
SELECT
    section, cause, really, listed, in_time, share, late, cost, averted, in_vain, no_problem, judged, confirmed
FROM added
WHERE section <> 'what it really was' OR really IS NOT NULL
ORDER BY
    CASE section WHEN 'in all' THEN 1 WHEN 'by reason' THEN 2 ELSE 3 END, listed DESC, cause COLLATE "C", really COLLATE "C"
