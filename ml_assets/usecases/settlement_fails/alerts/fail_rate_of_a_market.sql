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
-- @data: EXISTS (SELECT FROM outcome_counts WHERE dimension = 'market')
WITH by_date AS (
    SELECT
        value AS market, outcome_date, labelled AS instructions, fails,
        dense_rank() OVER (ORDER BY outcome_date DESC) AS place
    FROM outcome_counts JOIN report ON outcome_date > report.date - 35
    WHERE dimension = 'market' AND stage = 'batch' AND labelled > 0
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
