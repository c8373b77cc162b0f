-- Instructions and fails that became known on a day, by what the track record needs of them.
--
-- An instruction counts on the day on which it became known, its fail on the day on which both were known: whichever
-- comes last, however late. What counted before and does so no more is taken away (-1) on the day on which that became
-- known: a version that a newer one replaced, an instruction that was cancelled by the cut-off of its settlement date.
WITH failed AS (
    SELECT instruction_id, min(known_at) AS known_at FROM settlement_status WHERE status = 'PENF' GROUP BY instruction_id
),
cancelled AS (
    SELECT i.instruction_id, i.intended_settlement_date, min(s.known_at) AS known_at
    FROM settlement_status AS s
    JOIN settlement_instructions_versions AS i USING (instruction_id)
    LEFT JOIN cut_offs ON cut_offs.pset = i.pset
    WHERE s.status IN ('CANC', 'CAND')
      AND s.event_time <= i.intended_settlement_date + coalesce(cut_offs.cut_off::TIME, TIME '22:00')
    GROUP BY i.instruction_id, i.intended_settlement_date
),
versions AS (
    SELECT
        i.business_date,
        i.intended_settlement_date,
        i.counterparty_lei,
        securities.asset_class,
        greatest(i.known_at, failed.known_at) AS fails_from,
        failed.known_at IS NOT NULL AS fails,
        i.known_at AS counts_from,
        least(i.replaced_at, cancelled.known_at) AS counts_until
    FROM settlement_instructions_versions AS i
    LEFT JOIN failed USING (instruction_id)
    LEFT JOIN securities USING (isin)
    LEFT JOIN cancelled USING (instruction_id, intended_settlement_date)
),
counted AS (
    SELECT
        *,
        (counts_until IS NULL)::INT
            - (counts_from < getvariable('day_start') AND coalesce(counts_until >= getvariable('day_start'), true))::INT
            AS instruction,
        (fails AND counts_until IS NULL)::INT
            - (
                fails AND fails_from < getvariable('day_start')
                AND coalesce(counts_until >= getvariable('day_start'), true)
            )::INT AS fail
    FROM versions
)
SELECT
    business_date,
    intended_settlement_date,
    counterparty_lei,
    asset_class,
    sum(instruction)::BIGINT AS instructions,
    sum(fail)::BIGINT AS fails
FROM counted
WHERE instruction <> 0 OR fail <> 0
GROUP BY ALL
