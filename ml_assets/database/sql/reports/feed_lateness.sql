-- @title: Lateness of feeds
-- @cadence: daily
-- @as_of: end of day
-- @description: When the events of today's business date were known, by feed. The delay is from an event to when it was known here; late are those known after the end of their business date. The usual is the median of the 20 business dates before.
-- @summary: {date}: {events} events of today were known by the end of the day ({against_usual} against the usual); of the slowest feed, one in twenty took {p95_delay} minutes or more. In the four weeks before, {late} events came after the end of their date.
-- @empty: {date}: the use case has no feeds.
-- @column: source | Feed | code
-- @column: business_date | Business date | date
-- @column: events | Events | count
-- @column: usual_events | Usual events | count
-- @column: against_usual | Against the usual | change
-- @column: late | Late | count
-- @column: late_share | Share late | small share
-- @column: first_known_at | First known | time
-- @column: last_known_at | Last known | time
-- @column: median_delay | Median delay | minutes
-- @column: p95_delay | Delay, 95th percentile | minutes
-- @column: usual_p95_delay | Usual 95th percentile | minutes
-- @plot: lines | by date | business_date | p95_delay
-- @plot: lines | by date | business_date | late_share
WITH before AS (
    SELECT
        source,
        percentile_cont(0.5) WITHIN GROUP (ORDER BY events) AS usual_events,
        percentile_cont(0.5) WITHIN GROUP (ORDER BY p95_delay_minutes) AS usual_p95_delay
    FROM (
        SELECT feeds.*, row_number() OVER (PARTITION BY source ORDER BY business_date DESC) AS place
        FROM feeds JOIN report ON feeds.business_date < report.date
    ) AS earlier
    WHERE place <= 20
    GROUP BY source
),
by_feed AS (
    SELECT feeds.*, before.usual_events, before.usual_p95_delay
    FROM feeds JOIN report ON feeds.business_date = report.date LEFT JOIN before USING (source)
),
by_date AS (
    SELECT
        business_date,
        sum(events) AS events,
        sum(late) AS late,
        min(first_known_at) AS first_known_at,
        max(last_known_at) AS last_known_at,
        max(p95_delay_minutes) AS p95_delay
    FROM feeds GROUP BY business_date
)
SELECT
    'in all' AS section,
    NULL::text AS source,
    NULL::date AS business_date,
    events,
    (SELECT sum(usual_events) FROM before) AS usual_events,
    events::numeric / nullif((SELECT sum(usual_events) FROM before), 0)::numeric - 1 AS against_usual,
    (SELECT sum(late) FROM by_date JOIN report ON by_date.business_date < report.date) AS late,
    NULL::numeric AS late_share,
    NULL::timestamptz AS first_known_at,
    NULL::timestamptz AS last_known_at,
    NULL::double precision AS median_delay,
    p95_delay,
    (SELECT max(usual_p95_delay) FROM before) AS usual_p95_delay
FROM by_date JOIN report ON by_date.business_date = report.date
UNION ALL
(
    SELECT
        'by feed', source, NULL, events, usual_events, events::numeric / nullif(usual_events, 0)::numeric - 1, NULL,
        NULL, first_known_at, last_known_at, median_delay_minutes, p95_delay_minutes, usual_p95_delay
    FROM by_feed
    ORDER BY p95_delay_minutes DESC NULLS FIRST, source COLLATE "C"
)
UNION ALL
(
    SELECT
        'by date', NULL, business_date, events, NULL, NULL, late, late::numeric / nullif(events, 0), first_known_at,
        last_known_at, NULL, p95_delay, NULL
    FROM by_date
    ORDER BY business_date
)
