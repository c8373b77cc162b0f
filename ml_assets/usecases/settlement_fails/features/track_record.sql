-- @entity: asset class and counterparty (counterparty_lei), and the whole market
-- @as_of: outcomes of settlement dates before the decision date, 60 days back; the level: the newest reported by then
-- @owner: settlement-operations
--
-- How often asset classes and counterparties have failed, and whether more fails now, from outcomes known by now.
--
-- Only instructions whose settlement date is over count, open ones say nothing yet. A counterparty is compared with
-- what its asset classes alone would let expect (indirect standardisation), as if 3 more fails had been expected and
-- seen (additive smoothing): one of which little is known counts as average.
--
-- Rates are those of usual dates: a date on which more (or fewer) fail than on the median date, by more than three
-- standard deviations, counts as so many more (or fewer) instructions, as if 10 more fails had been expected and seen.
-- Otherwise a stress would stay in all rates for 60 days after its end.
--
-- The market's level compares the fails of the newest settlement date that is over (they are reported within two hours
-- of the last cut-off, so in the evening it may be today) with what asset classes and counterparties would let expect:
-- where a stress begins or ends it shows here first, while the rates of 60 days hardly move. Chance explains two
-- standard deviations (of a Poisson count), so only what is beyond them counts, as if 100 more fails had been expected
-- and seen. A date of which no fail at all has been reported has not been reported on.
WITH reported AS (
    SELECT intended_settlement_date, counterparty_lei, asset_class, instructions, fails
    FROM outcomes
    WHERE business_date >= getvariable('decision_date') - 60
      AND intended_settlement_date + coalesce((SELECT max(cut_off::TIME) FROM cut_offs), TIME '22:00')
          + INTERVAL 2 HOUR <= getvariable('as_of')::TIMESTAMP
),
dates AS (
    SELECT intended_settlement_date, sum(instructions) AS instructions, sum(fails) AS fails
    FROM reported
    WHERE intended_settlement_date < getvariable('decision_date')
    GROUP BY intended_settlement_date
),
usual AS (SELECT median(fails / instructions) AS rate FROM dates WHERE instructions > 0),
times_usual AS (
    SELECT
        intended_settlement_date,
        CASE WHEN abs(fails - instructions * rate) > 3 * sqrt(instructions * rate)
            THEN (fails + 10) / (instructions * rate + 10) ELSE 1 END AS times
    FROM dates CROSS JOIN usual
),
settled AS (
    SELECT
        counterparty_lei,
        asset_class,
        sum(instructions * times ORDER BY intended_settlement_date) AS instructions,
        sum(fails) AS fails
    FROM (
        SELECT
            intended_settlement_date,
            counterparty_lei,
            asset_class,
            sum(instructions) AS instructions,
            sum(fails) AS fails
        FROM reported
        GROUP BY intended_settlement_date, counterparty_lei, asset_class
    ) JOIN times_usual USING (intended_settlement_date)
    GROUP BY counterparty_lei, asset_class
),
classes AS (
    -- In order, since the last digit of a sum depends on it; so do the next ones.
    SELECT asset_class, (sum(fails) + 1) / (sum(instructions ORDER BY counterparty_lei) + 20) AS rate
    FROM settled
    GROUP BY asset_class
),
counterparties_compared AS (
    SELECT
        counterparty_lei,
        ln((sum(fails) + 3) / (sum(instructions * classes.rate ORDER BY asset_class) + 3)) AS relative_rate
    FROM settled JOIN classes USING (asset_class)
    GROUP BY counterparty_lei
),
newest AS (
    SELECT max(intended_settlement_date) FILTER (WHERE fails > 0) AS intended_settlement_date FROM reported
),
newest_compared AS (
    SELECT
        sum(fails) AS fails,
        sum(instructions * classes.rate * exp(c.relative_rate) ORDER BY counterparty_lei, asset_class) AS expected
    FROM (
        SELECT counterparty_lei, asset_class, sum(instructions) AS instructions, sum(fails) AS fails
        FROM reported SEMI JOIN newest USING (intended_settlement_date)
        GROUP BY counterparty_lei, asset_class
    ) JOIN classes USING (asset_class) JOIN counterparties_compared AS c USING (counterparty_lei)
),
market AS (
    SELECT
        ln(1 + sign(fails - expected) * greatest(0, abs(fails - expected) - 2 * sqrt(expected)) / (expected + 100))
            AS level
    FROM newest_compared
)
SELECT
    entity_id,
    c.relative_rate AS counterparty_relative_rate,
    ln(classes.rate / (1 - classes.rate)) + coalesce(c.relative_rate, 0) + coalesce(market.level, 0) AS prior_log_odds
FROM decisions
LEFT JOIN counterparties_compared AS c USING (counterparty_lei)
LEFT JOIN classes USING (asset_class)
CROSS JOIN market
