-- @title: Data quality by source
-- @cadence: daily
-- @as_of: end of day
-- @description: How many messages of today's business date were kept and how many were left out, by source; copies are left aside. Left out are those that broke a rule (quarantine) and those that broke their contract (dead letters). Beyond the limits is what ingestion stops at. What was mended and ingested again since is not counted as left out any more.
-- @summary: {date}: {messages} messages came, and {left_out} of them were left out ({left_out_share}; {usual_share} on the dates before). Sources beyond their limits: {beyond}.
-- @empty: {date}: the use case has no sources.
-- @column: source | Source | code
-- @column: business_date | Business date | date
-- @column: reason | Reason | text
-- @column: messages | Messages | count
-- @column: left_out | Left out | count
-- @column: rejected | Broke a rule | count
-- @column: dead_letters | Broke the contract | count
-- @column: left_out_share | Share left out | small share
-- @column: usual_share | Usual share | small share
-- @column: beyond | Beyond the limits | count
-- @column: beyond_limits | Is beyond its limits | code
-- @plot: lines | by date | business_date | left_out_share
WITH counted AS (
    SELECT quality.*, rejected + dead_letters AS left_out, kept + rejected + dead_letters AS messages FROM quality
),
added AS (
    SELECT
        GROUPING(source, business_date) AS grouping,
        source,
        business_date,
        sum(messages) AS messages,
        sum(left_out) AS left_out,
        sum(rejected) AS rejected,
        sum(dead_letters) AS dead_letters,
        count(*) FILTER (WHERE beyond_limits) AS beyond,
        bool_or(beyond_limits) AS beyond_limits
    FROM counted
    GROUP BY GROUPING SETS ((business_date), (source, business_date))
),
compared AS (
    -- The usual share is that of all earlier dates of these four weeks together.
    SELECT
        added.*,
        sum(left_out) OVER earlier / nullif(sum(messages) OVER earlier, 0) AS usual_share
    FROM added
    WINDOW earlier AS (
        PARTITION BY grouping, source ORDER BY business_date ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    )
),
rows_of AS (
    SELECT 1 AS place, 'in all' AS section, compared.* FROM compared JOIN report ON business_date = report.date
    WHERE grouping = 2
    UNION ALL
    SELECT 2, 'by source', compared.* FROM compared JOIN report ON business_date = report.date WHERE grouping = 0
    UNION ALL
    SELECT 3, 'by date', compared.* FROM compared WHERE grouping = 2
)
(
SELECT
    section,
    source,
    CASE WHEN place = 3 THEN business_date END AS business_date,
    NULL::text AS reason,
    messages,
    left_out,
    rejected,
    dead_letters,
    left_out / nullif(messages, 0) AS left_out_share,
    CASE WHEN place < 3 THEN usual_share END AS usual_share,
    CASE WHEN place <> 2 THEN beyond END AS beyond,
    CASE WHEN place = 2 THEN beyond_limits END AS beyond_limits
FROM (
    SELECT rows_of.*, row_number() OVER (
        ORDER BY place, CASE WHEN place = 2 THEN left_out END DESC, rows_of.business_date, source COLLATE "C"
    ) AS number
    FROM rows_of
) AS ordered
ORDER BY number
)
UNION ALL
(
    SELECT 'why, in four weeks', source, NULL, reason, NULL, rows, NULL, NULL, NULL, NULL, NULL, NULL
    FROM reasons
    ORDER BY rows DESC, source COLLATE "C", reason COLLATE "C"
)
