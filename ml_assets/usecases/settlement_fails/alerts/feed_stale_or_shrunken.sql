-- @title: Feed stale or shrunken
-- @severity: critical
-- @every: 1 hour
-- @description: Of the newest business date that is over, a feed has brought nothing, or less than half of what it brought in the median of the 20 dates before. What is made from it is incomplete. A date on which no feed at all brought anything is a holiday, or the lander's: it has a rule of its own.
-- @runbook: feed-stale-or-shrunken
-- @message: {source} of {business_date}: {events|count} events; usual are {usual|count}
-- @key: source
-- @for: 1 hour
-- @data: EXISTS (SELECT FROM feeds WHERE events > 0)
WITH open_dates AS (
    SELECT business_date FROM feeds GROUP BY business_date HAVING sum(events) > 0
),
numbered AS (
    SELECT feeds.*, row_number() OVER (PARTITION BY source ORDER BY business_date DESC) AS place
    FROM feeds JOIN open_dates USING (business_date) JOIN report ON business_date < report.date
),
usual AS (
    SELECT source, percentile_disc(0.5) WITHIN GROUP (ORDER BY events) AS usual, count(*) AS dates
    FROM numbered WHERE place BETWEEN 2 AND 21 AND events > 0 GROUP BY source
)
SELECT source, business_date, events, usual
FROM numbered JOIN usual USING (source)
WHERE place = 1 AND dates >= 5 AND events < 0.5 * usual
