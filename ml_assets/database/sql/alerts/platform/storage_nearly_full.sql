-- @title: Disk or quota nearly full
-- @severity: critical
-- @every: 15 minutes
-- @description: A place that the platform writes to is more than nine tenths full.
-- @runbook: disk-or-quota-nearly-full
-- @message: {place} is {used|share} full, {free_gib|metric} GiB are free
-- @key: place
-- @for: 15 minutes
SELECT place, used, free_gib FROM storage WHERE used > 0.9
