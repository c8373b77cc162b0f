-- The account of a topic's landing: is every offset below the position accounted for, once?
--
-- `landed` are the rows of the landing table, `positions` (kafka_epoch, kafka_partition, position) what the Delta log
-- says has been consumed. An offset is an event, a dead letter (also once it has been replayed), or lies in a gap.
WITH offsets AS (
    SELECT
        kafka_epoch,
        kafka_partition,
        kafka_offset,
        count(*) FILTER (WHERE kind = 'event') AS events,
        count(*) FILTER (WHERE kind = 'dead_letter') AS dead_letters,
        count(*) FILTER (WHERE kind = 'replay') AS replays
    FROM landed
    WHERE kind <> 'gap'
    GROUP BY ALL
), gaps AS (
    SELECT
        kafka_epoch,
        kafka_partition,
        sum(gap_until - kafka_offset) AS gap_offsets,
        sum(gap_until - kafka_offset) FILTER (WHERE letter_reason LIKE 'lost:%') AS lost_offsets
    FROM landed
    WHERE kind = 'gap'
    GROUP BY ALL
), counted AS (
    SELECT
        kafka_epoch,
        kafka_partition,
        count(*) AS messages,
        count(*) FILTER (WHERE dead_letters = 0) AS landed,
        count(*) FILTER (WHERE dead_letters > 0) AS dead_lettered,
        count(*) FILTER (WHERE dead_letters > 0 AND events > 0) AS replayed,
        -- An event or dead letter twice; or both, without the replay that explains it.
        count(*) FILTER (WHERE events > 1 OR dead_letters > 1 OR events + dead_letters - replays > 1) AS doubled,
        count(*) FILTER (WHERE kafka_offset >= position) AS beyond
    FROM offsets
    LEFT JOIN positions USING (kafka_epoch, kafka_partition)
    GROUP BY ALL
)
SELECT
    kafka_epoch,
    kafka_partition,
    position,
    coalesce(landed, 0) AS landed,
    coalesce(dead_lettered, 0) AS dead_lettered,
    coalesce(replayed, 0) AS replayed,
    coalesce(gap_offsets, 0)::BIGINT AS gap_offsets,
    coalesce(lost_offsets, 0)::BIGINT AS lost_offsets,
    (position - coalesce(messages, 0) + coalesce(beyond, 0) - coalesce(gap_offsets, 0))::BIGINT AS missing,
    coalesce(doubled, 0) AS doubled,
    coalesce(beyond, 0) AS beyond
FROM positions
LEFT JOIN counted USING (kafka_epoch, kafka_partition)
LEFT JOIN gaps USING (kafka_epoch, kafka_partition)
ORDER BY kafka_epoch, kafka_partition
