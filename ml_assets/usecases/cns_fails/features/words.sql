-- @entity: security (symbol)
-- @as_of: the last 60 settlement dates that were published at the decision
-- @owner: market-operations
--
-- What the words of a security's description tell: how near to 100,000 USD the balances of the other decided securities
-- have been that have a word too (a fund's house, WARRANT, ADR), as the logarithm of their mean over the market's.
--
-- A word counts if five securities have it. Its mean is damped as if 20 more of the market's mean had it, and the
-- security itself is left out, whose own balances are in other features.
WITH covered AS (
    SELECT DISTINCT settlement_date FROM cns_fails ORDER BY settlement_date DESC LIMIT 60
),
priced AS (
    SELECT
        symbol,
        settlement_date,
        description,
        quantity * coalesce(
            price,
            last_value(price IGNORE NULLS) OVER (PARTITION BY symbol ORDER BY settlement_date, event_id)
        ) AS value
    FROM cns_fails SEMI JOIN covered USING (settlement_date)
    WHERE symbol IN (SELECT entity_id FROM decisions)
),
daily AS (
    SELECT symbol, settlement_date, sum(value) AS value, max(description) AS description FROM priced GROUP BY ALL
),
rates AS (
    SELECT
        symbol,
        arg_max(description, settlement_date) AS description,
        coalesce(sum(1 / (1 + pow(100000 / nullif(value, 0), 1.5))), 0) / (SELECT count(*) FROM covered) AS rate
    FROM daily
    GROUP BY symbol
),
market AS (
    SELECT avg(rate) AS rate FROM rates
),
words AS (
    SELECT DISTINCT symbol, rate, unnest(string_split_regex(description, '[ .,]+')) AS word FROM rates
),
by_word AS (
    SELECT word, count(*) AS securities, sum(rate) AS rates FROM words WHERE word <> '' GROUP BY word
),
told AS (
    SELECT
        words.symbol,
        -- A market without any balance near the threshold tells nothing.
        ln((by_word.rates - words.rate + 20 * market.rate) / (securities - 1 + 20) / nullif(market.rate, 0)) AS log_ratio
    FROM words JOIN by_word USING (word), market
    WHERE securities >= 5
)
-- Rounded: the last digits of a sum depend on the order of its terms.
SELECT
    symbol AS entity_id,
    round(coalesce(avg(log_ratio), 0), 6) AS words_mean,
    round(coalesce(max(log_ratio), 0), 6) AS words_most,
    round(coalesce(min(log_ratio), 0), 6) AS words_least
FROM rates LEFT JOIN told USING (symbol)
GROUP BY symbol
