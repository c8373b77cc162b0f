-- @title: Cost of fails by counterparty, month to date
-- @owner: settlement-operations
-- @cadence: daily
-- @as_of: end of day
-- @description: What fails of this month have cost, by counterparty: cash penalty and funding for the usual two days late, of instructions whose outcome is known, by their intended settlement date. Expected is the cost of the dates up to today whose outcomes are open. The forecast adds to both, for each business day that is left of the month, the mean cost of the newest 20 dates that are complete. These are the model's costs, not what the depositories have billed. Of counterparties, the 40 that cost most are shown.
-- @summary: {month}, up to {date}: {fails} fails have cost {cost} {currency}; with what is open, and at the pace of the newest 20 dates, the month will cost {forecast} {currency}.
-- @empty: {month}, up to {date}: no instruction has an outcome yet.
-- @column: counterparty | Counterparty | text
-- @column: business_date | Intended settlement date | date
-- @column: instructions | Instructions with an outcome | count
-- @column: fails | Fails | count
-- @column: fail_rate | Fail rate | share
-- @column: cost | Cost so far | currency
-- @column: share_of_cost | Share of the cost | share
-- @column: open_cost | Expected of open dates | currency
-- @column: forecast | Forecast of the month | currency
-- @column: cost_so_far | Cost since the month began | currency
-- @plot: bars | by counterparty | counterparty | cost, forecast
-- @plot: lines | by date | business_date | cost_so_far
WITH newest AS (
    -- The newest decision about each instruction and settlement date, with what came of it.
    SELECT
        o.outcome_date,
        o.is_complete,
        o.label,
        CASE WHEN o.label = 1 THEN o.cost_if_fail ELSE 0 END::numeric AS cost,
        o.expected_cost::numeric AS expected_cost,
        coalesce(p.attributes ->> 'counterparty', 'unknown') AS counterparty
    FROM outcomes AS o
    JOIN report ON o.outcome_date BETWEEN report.month - 60 AND report.date
    LEFT JOIN predictions AS p
        ON p.entity_id = o.entity_id AND p.decision_time = o.decision_time
        AND p.outcome_date BETWEEN report.month - 60 AND report.date
    WHERE o.is_last AND o.stage = 'batch'
),
pace AS (
    SELECT outcome_date FROM newest WHERE is_complete GROUP BY outcome_date ORDER BY outcome_date DESC LIMIT 20
),
pace_by_counterparty AS (
    SELECT counterparty, sum(cost) / (SELECT count(*) FROM pace) AS cost_a_day
    FROM newest JOIN pace USING (outcome_date) GROUP BY counterparty
),
added AS (
    SELECT
        GROUPING(counterparty, outcome_date) AS grouping,
        counterparty,
        outcome_date,
        count(label) AS instructions,
        count(*) FILTER (WHERE label = 1) AS fails,
        sum(cost) AS cost,
        sum(expected_cost) FILTER (WHERE NOT is_complete AND label IS NULL) AS open_cost
    FROM newest JOIN report ON outcome_date >= report.month
    GROUP BY GROUPING SETS ((), (counterparty), (outcome_date))
    HAVING count(*) > 0
),
forecast AS (
    SELECT
        added.*,
        CASE WHEN grouping <> 2 THEN
            cost + coalesce(open_cost, 0) + report.business_days_left * coalesce(
                CASE WHEN grouping = 3 THEN (SELECT sum(cost_a_day) FROM pace_by_counterparty) ELSE cost_a_day END, 0)
        END AS forecast,
        row_number() OVER (
            PARTITION BY grouping ORDER BY cost DESC, open_cost DESC NULLS LAST, counterparty COLLATE "C"
        ) AS place,
        sum(cost) OVER (PARTITION BY grouping ORDER BY outcome_date) AS running
    FROM added CROSS JOIN report LEFT JOIN pace_by_counterparty USING (counterparty)
)
SELECT
    CASE grouping WHEN 3 THEN 'in all' WHEN 1 THEN 'by counterparty' ELSE 'by date' END AS section,
    counterparty,
    outcome_date AS business_date,
    instructions,
    fails,
    fails::numeric / nullif(instructions, 0) AS fail_rate,
    cost,
    CASE WHEN grouping = 1 THEN cost / nullif(sum(cost) OVER (PARTITION BY grouping), 0) END AS share_of_cost,
    open_cost,
    forecast,
    CASE WHEN grouping = 2 THEN running END AS cost_so_far
FROM forecast
WHERE grouping <> 1 OR place <= 40
ORDER BY
    CASE grouping WHEN 3 THEN 1 WHEN 1 THEN 2 ELSE 3 END,
    CASE WHEN grouping = 1 THEN place END,
    outcome_date
