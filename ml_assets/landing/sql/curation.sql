-- The account of curation: what has become of every landed event of a use case, by business date?
--
-- An event is curated, quarantined, or a copy of a curated one of its date; `unaccounted` is what is none of these, and
-- `oldest` when the first of it landed. A date before `$first` is `early`: no partition. `landed`, `curated` and `quarantine` have Kafka coordinates and business dates,
-- the first two the columns in which copies agree, `key`, as one text.
WITH events AS (
    SELECT
        l.business_date,
        l.landed_at,
        c.kafka_offset IS NOT NULL AS is_curated,
        q.kafka_offset IS NOT NULL AS is_quarantined,
        k.key IS NOT NULL AS is_copy
    FROM landed AS l
    LEFT JOIN curated AS c USING (business_date, kafka_epoch, kafka_partition, kafka_offset)
    LEFT JOIN (
        SELECT DISTINCT business_date, kafka_epoch, kafka_partition, kafka_offset
        FROM quarantine WHERE reason NOT LIKE 'not decodable: %'
    ) AS q USING (business_date, kafka_epoch, kafka_partition, kafka_offset)
    LEFT JOIN (SELECT DISTINCT business_date, key FROM curated) AS k ON k.business_date = l.business_date AND k.key = l.key
)
SELECT
    business_date,
    count(*) AS landed,
    count(*) FILTER (WHERE is_curated) AS curated,
    count(*) FILTER (WHERE is_quarantined AND NOT is_curated) AS quarantined,
    count(*) FILTER (WHERE is_copy AND NOT is_curated AND NOT is_quarantined) AS copies,
    count(*) FILTER (WHERE NOT (is_curated OR is_quarantined OR is_copy)) AS unaccounted,
    min(landed_at) FILTER (WHERE NOT (is_curated OR is_quarantined OR is_copy)) AS oldest,
    business_date < $first AS early
FROM events
GROUP BY business_date
ORDER BY business_date
