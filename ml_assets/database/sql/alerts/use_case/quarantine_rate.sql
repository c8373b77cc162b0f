-- @title: Quarantine rate
-- @severity: critical
-- @every: 1 hour
-- @description: Of a date, more rows break a rule or their contract than the event's limits let through. Ingestion has stopped there, and so have the decisions that need it.
-- @runbook: quarantine-rate
-- @message: {source} of {business_date}: {left_out|count} of {rows|count} rows are in quarantine, more than the limits let through
-- @key: source, business_date
SELECT
    source, business_date, rejected + dead_letters AS left_out, kept + rejected + dead_letters AS rows
FROM quality JOIN report ON business_date BETWEEN report.date - 7 AND report.date
WHERE beyond_limits
