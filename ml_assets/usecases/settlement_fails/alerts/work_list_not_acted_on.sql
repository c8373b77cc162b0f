-- @title: Work-list not acted on before cut-off
-- @severity: critical
-- @owner: settlement-operations
-- @every: 15 minutes
-- @description: Within two hours of the cut-off of a place of settlement, fewer than half of the instructions of today's list that settle there, within the team's capacity, have been acted on, and at least five have not. The control group is left alone on purpose and does not count. A team that does not write down what it does at the desk is not called: it has no data.
-- @runbook: work-list-not-acted-on
-- @message: {place}, cut-off {cut_off|time} UTC: {left_over|count} of {instructions|count} listed instructions are not acted on, {cost|currency} expected
-- @key: place
-- @data: EXISTS (SELECT FROM acted_on JOIN report ON acted_on.outcome_date > report.date - 14 WHERE acted_at IS NOT NULL)
WITH listed AS (
    SELECT
        w.entity_id, w.outcome_date, w.expected_cost,
        coalesce(w.attributes ->> 'pset', 'unknown') AS place,
        (w.outcome_date + (w.attributes ->> 'cut_off')::time) AT TIME ZONE 'UTC' AS cut_off
    FROM work_list AS w JOIN report ON w.outcome_date = report.date
    WHERE w.priority <= report.capacity AND w.attributes ->> 'cut_off' IS NOT NULL
        AND w.attributes ->> 'handling' IS DISTINCT FROM 'usual way'
)
SELECT
    place,
    min(cut_off) AS cut_off,
    count(*) AS instructions,
    count(*) FILTER (WHERE acted_at IS NULL) AS left_over,
    sum(expected_cost) FILTER (WHERE acted_at IS NULL) AS cost
FROM listed CROSS JOIN report LEFT JOIN acted_on USING (entity_id, outcome_date)
WHERE cut_off BETWEEN report.as_of AND report.as_of + INTERVAL '2 hours'
GROUP BY place
HAVING count(*) FILTER (WHERE acted_at IS NULL) >= 5 AND count(*) < 2 * count(*) FILTER (WHERE acted_at IS NULL)
