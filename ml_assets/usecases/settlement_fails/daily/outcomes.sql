-- Instructions and fails that became known on a day, by what the track record needs of them.
--
-- An instruction counts on the day on which it became known, its fail on the day on which both were known: whichever
-- comes last, however late. A correction is another instruction of its business date, as it always was.
WITH failed AS (
    SELECT instruction_id, min(known_at) AS known_at FROM settlement_status WHERE status = 'PENF' GROUP BY instruction_id
),
counted AS (
    SELECT
        i.business_date,
        i.intended_settlement_date,
        i.counterparty_lei,
        securities.asset_class,
        (i.known_at >= getvariable('day_start'))::INT AS instruction,
        (failed.known_at IS NOT NULL AND greatest(i.known_at, failed.known_at) >= getvariable('day_start'))::INT AS fail
    FROM settlement_instructions AS i
    LEFT JOIN failed USING (instruction_id)
    LEFT JOIN securities USING (isin)
)
SELECT
    business_date,
    intended_settlement_date,
    counterparty_lei,
    asset_class,
    sum(instruction)::BIGINT AS instructions,
    sum(fail)::BIGINT AS fails
FROM counted
WHERE instruction + fail > 0
GROUP BY ALL
