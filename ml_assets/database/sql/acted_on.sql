-- What was done about rows of a work-list: one row for each that somebody claimed, acted on or judged.
--
-- The rule of predictions/feedback.py, without leases and names: lines that were taken back do not count, and of each
-- kind the newest counts. `in_time` says whether it was acted on before the cut-off that was shown. `cause` is what it
-- was really about, `shown_cause` what the list had said, `shown_probability` null if the score was hidden.
SELECT
    use_case,
    outcome_date,
    entity_id,
    min(at) FILTER (WHERE what = 'claimed') AS claimed_at,
    (array_agg(at ORDER BY id DESC) FILTER (WHERE what = 'acted'))[1] AS acted_at,
    (array_agg(value ORDER BY id DESC) FILTER (WHERE what = 'acted'))[1] AS action_for,
    coalesce((array_agg(at < cut_off_at ORDER BY id DESC) FILTER (WHERE what = 'acted'))[1], false) AS in_time,
    CASE WHEN bool_or(what = 'acted')
        THEN (array_agg(value ORDER BY id DESC) FILTER (WHERE what = 'resulted'))[1] END AS result,
    (array_agg(value ORDER BY id DESC) FILTER (WHERE what = 'judged'))[1] AS cause,
    (array_agg(shown_cause ORDER BY id DESC) FILTER (WHERE what IN ('acted', 'judged')))[1] AS shown_cause,
    (array_agg(shown_probability ORDER BY id DESC) FILTER (WHERE what IN ('acted', 'judged')))[1] AS shown_probability,
    (array_agg(shown_expected_cost ORDER BY id DESC) FILTER (WHERE what = 'acted'))[1] AS shown_expected_cost,
    (array_agg(shown_priority ORDER BY id DESC) FILTER (WHERE what = 'acted'))[1] AS shown_priority
FROM feedback
WHERE what IN ('claimed', 'acted', 'resulted', 'judged')
    AND NOT EXISTS (SELECT FROM feedback AS back WHERE back.undoes = feedback.id)
GROUP BY use_case, outcome_date, entity_id
