-- @title: Model performance by month
-- @cadence: monthly
-- @as_of: end of day
-- @description: How good the predictions of twelve months were, by the month of the outcome. Counted are decisions of complete outcome dates. On the list is what the team was to act on. PR-AUC (with its interval over days) and calibration error are those of the newest monitoring window that ended in the month.
-- @summary: {month}: of {decisions} decisions with an outcome {fails} failed ({fail_rate}; the model said {mean_probability}), and {caught} of the fails were on the lists. PR-AUC {pr_auc}.
-- @empty: {month}: no outcome date of these twelve months is complete.
-- @column: month | Month | code
-- @column: model_version | Model version | code
-- @column: decisions | Decisions | count
-- @column: fails | Fails | count
-- @column: fail_rate | Fail rate | share
-- @column: mean_probability | Mean probability | share
-- @column: listed | On the list | count
-- @column: precision | Fails among the listed | share
-- @column: caught | Fails on the list, of all | share
-- @column: pr_auc | PR-AUC | metric
-- @column: pr_auc_low | PR-AUC, low end | metric
-- @column: pr_auc_high | PR-AUC, high end | metric
-- @column: calibration_error | Calibration error | metric
-- @plot: lines | by month | month | fail_rate, mean_probability
-- @plot: lines | by month | month | pr_auc, pr_auc_low, pr_auc_high
WITH judged AS (
    SELECT date_trunc('month', o.outcome_date)::date AS month, o.model_version, o.label, o.probability, o.on_list
    FROM outcomes AS o
    JOIN report ON o.outcome_date BETWEEN (report.month - INTERVAL '11 months')::date AND report.date
    WHERE o.is_complete AND o.label IS NOT NULL AND o.stage = 'batch'
),
added AS (
    SELECT
        GROUPING(model_version) AS is_whole,
        month,
        model_version::text AS model_version,
        count(*) AS decisions,
        sum(label) AS fails,
        avg(label::numeric) AS fail_rate,
        avg(probability::numeric) AS mean_probability,
        count(*) FILTER (WHERE on_list) AS listed,
        avg(label::numeric) FILTER (WHERE on_list) AS precision,
        count(*) FILTER (WHERE on_list AND label = 1)::numeric / nullif(sum(label), 0) AS caught
    FROM judged
    GROUP BY GROUPING SETS ((month), (month, model_version))
),
windows AS (
    -- The newest window that ended in each month, of each group.
    SELECT
        date_trunc('month', outcome_date)::date AS month,
        CASE dimension WHEN 'all' THEN 1 ELSE 0 END AS is_whole,
        CASE dimension WHEN 'model_version' THEN value END AS model_version,
        metric,
        measured,
        low,
        high,
        row_number() OVER (PARTITION BY date_trunc('month', outcome_date), dimension, value, metric
            ORDER BY outcome_date DESC) AS place
    FROM performance
    WHERE dimension IN ('all', 'model_version') AND metric IN ('pr_auc', 'calibration_error')
),
metrics AS (
    SELECT
        month,
        is_whole,
        model_version,
        max(measured) FILTER (WHERE metric = 'pr_auc') AS pr_auc,
        max(low) FILTER (WHERE metric = 'pr_auc') AS pr_auc_low,
        max(high) FILTER (WHERE metric = 'pr_auc') AS pr_auc_high,
        max(measured) FILTER (WHERE metric = 'calibration_error') AS calibration_error
    FROM windows WHERE place = 1
    GROUP BY month, is_whole, model_version
),
by_month AS (
    SELECT added.*, metrics.pr_auc, metrics.pr_auc_low, metrics.pr_auc_high, metrics.calibration_error
    FROM added
    LEFT JOIN metrics
        ON metrics.month = added.month AND metrics.is_whole = added.is_whole
        AND metrics.model_version IS NOT DISTINCT FROM added.model_version
),
sections AS (
    SELECT 1 AS place, 'in the month' AS section, by_month.* FROM by_month JOIN report USING (month) WHERE is_whole = 1
    UNION ALL
    SELECT 2, 'by month', by_month.* FROM by_month WHERE is_whole = 1
    UNION ALL
    SELECT 3, 'by month and model version', by_month.* FROM by_month WHERE is_whole = 0
)
SELECT
    section,
    to_char(month, 'YYYY-MM') AS month,
    model_version,
    decisions,
    fails,
    fail_rate,
    mean_probability,
    listed,
    precision,
    caught,
    pr_auc,
    pr_auc_low,
    pr_auc_high,
    calibration_error
FROM sections
ORDER BY place, sections.month, model_version::integer
