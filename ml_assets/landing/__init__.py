"""Landing: Kafka to Delta, files to rows, and curation. It knows nothing about Dagster."""
