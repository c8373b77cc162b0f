-- @title: Fail rate of a market
-- @severity: warning
-- @owner: settlement-operations
-- @follows: outcomes
-- @deadline: 4 days
-- @description: On the newest complete settlement date far more instructions of a market failed than in the 20 dates before: half as many again, and more than four standard deviations of chance.
-- @runbook: fail-rate-of-a-market
-- @message: {market}, {date}: {fails|count} of {instructions|count} instructions failed ({rate|share}); usual are {usual|share}
-- @key: market
-- @keep_firing_for: 1 day
-- @data: EXISTS (SELECT FROM outcomes WHERE is_complete)
WITH newest AS (
    SELECT o.outcome_date, coalesce(p.attributes ->> 'market', 'unknown') AS market, o.label
    FROM outcomes AS o
    JOIN report ON o.outcome_date > report.date - 35
    LEFT JOIN predictions AS p
        ON p.entity_id = o.entity_id AND p.decision_time = o.decision_time AND p.outcome_date = o.outcome_date
        AND p.decision_time > report.as_of - INTERVAL '45 days'
    WHERE o.is_last AND o.is_complete AND o.stage = 'batch' AND o.label IS NOT NULL
),
by_date AS (
    SELECT
        market, outcome_date, count(*) AS instructions, sum(label) AS fails,
        dense_rank() OVER (ORDER BY outcome_date DESC) AS place
    FROM newest GROUP BY market, outcome_date
),
usual AS (
    SELECT market, sum(fails)::numeric / sum(instructions) AS usual, count(*) AS dates
    FROM by_date WHERE place BETWEEN 2 AND 21 GROUP BY market
)
SELECT market, outcome_date AS date, fails, instructions, fails::numeric / instructions AS rate, usual
FROM by_date JOIN usual USING (market)
WHERE place = 1 AND dates >= 5
    AND fails > 1.5 * usual * instructions
    AND fails > usual * instructions + 4 * sqrt(usual * (1 - usual) * instructions)
