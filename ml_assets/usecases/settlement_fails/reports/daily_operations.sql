-- @title: Daily operations
-- @owner: settlement-operations
-- @cadence: daily
-- @as_of: 08:00
-- @description: Open instructions whose intended settlement date is today, by the scores of this morning, against the list of the same weekday last week at the same time. Expected cost is the probability of a fail times cash penalty and funding for the usual two days late. A cause is known of what the team is to act on.
-- @summary: {date}: {instructions} open instructions worth {value} {currency} settle today; {expected_fails} of them are expected to fail, at an expected cost of {expected_cost} {currency} ({change} against last week).
-- @empty: {date}: no open instruction has its intended settlement date today, or none has been scored.
-- @column: market | Market (MIC) | code
-- @column: cause | Most likely cause | text
-- @column: action | What to do | text
-- @column: instructions | Instructions | count
-- @column: value | Value | currency
-- @column: expected_fails | Expected fails | expected count
-- @column: value_at_risk | Value expected to fail | currency
-- @column: expected_cost | Expected cost | currency
-- @column: on_list | Within the team's capacity | count
-- @column: last_week_fails | Expected fails last week | expected count
-- @column: last_week_cost | Expected cost last week | currency
-- @column: change | Change of expected cost | change
-- @plot: bars | by market | market | expected_cost, last_week_cost
-- @plot: bars | by cause | cause | expected_cost, last_week_cost
WITH lists AS (
    SELECT true AS is_today, w.*
    FROM work_list AS w JOIN report ON w.outcome_date = report.date
    UNION ALL
    SELECT false, w.*
    FROM work_list_week_before AS w JOIN report ON w.outcome_date = report.date - 7
),
instructions AS (
    SELECT
        is_today,
        coalesce(attributes ->> 'market', 'unknown') AS market,
        coalesce(causes.name, CASE WHEN reason_codes IS NULL THEN 'not explained: beyond the list' ELSE 'none stands out' END)
            AS cause,
        causes.action,
        (attributes ->> 'amount')::numeric AS amount,
        probability::numeric AS probability,
        expected_cost::numeric AS expected_cost,
        priority <= report.capacity AS on_list
    FROM lists CROSS JOIN report LEFT JOIN causes ON causes.code = reason_codes ->> 'cause'
),
added AS (
    SELECT
        GROUPING(market, cause) AS grouping,
        market,
        cause,
        CASE WHEN GROUPING(cause) = 0 AND GROUPING(market) = 1 THEN min(action) END AS action,
        count(*) FILTER (WHERE is_today) AS instructions,
        sum(amount) FILTER (WHERE is_today) AS value,
        sum(probability) FILTER (WHERE is_today) AS expected_fails,
        sum(probability * amount) FILTER (WHERE is_today) AS value_at_risk,
        sum(expected_cost) FILTER (WHERE is_today) AS expected_cost,
        count(*) FILTER (WHERE is_today AND on_list) AS on_list,
        sum(probability) FILTER (WHERE NOT is_today) AS last_week_fails,
        sum(expected_cost) FILTER (WHERE NOT is_today) AS last_week_cost
    FROM instructions
    GROUP BY GROUPING SETS ((), (market), (cause), (market, cause))
    HAVING count(*) > 0
)
SELECT
    CASE grouping WHEN 3 THEN 'in all' WHEN 1 THEN 'by market' WHEN 2 THEN 'by cause' ELSE 'by market and cause' END
        AS section,
    market,
    cause,
    action,
    instructions,
    value,
    expected_fails,
    value_at_risk,
    expected_cost,
    on_list,
    last_week_fails,
    last_week_cost,
    expected_cost / nullif(last_week_cost, 0) - 1 AS change
FROM added
WHERE grouping <> 0 OR instructions > 0
ORDER BY
    CASE grouping WHEN 3 THEN 1 WHEN 1 THEN 2 WHEN 2 THEN 3 ELSE 4 END,
    expected_cost DESC NULLS LAST,
    market COLLATE "C",
    cause COLLATE "C"
