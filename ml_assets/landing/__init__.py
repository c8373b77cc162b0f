"""Landing: Kafka to Delta and dropped files to rows, and what curation makes of them. Knows nothing of Dagster."""
