"""A report made up for tests."""

HEAD = """\
-- @title: Fails
-- @cadence: daily
-- @as_of: 08:00
-- @description: What fails.
-- @summary: {date}: {fails} fails cost {cost} {currency}.
"""
SQL = (
    HEAD
    + """\
-- @column: market | Market | text
-- @column: fails | Fails | count
-- @column: cost | Cost | currency
-- @column: change | Change | change
-- @plot: bars | by market | market | cost
-- It is cheap now(); a comment may say so.
SELECT 'by market' AS section, 'now()' AS market, count(*) AS fails, sum(expected_cost) AS cost, NULL AS change
FROM work_list
"""
)
