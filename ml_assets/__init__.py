"""The ML lifecycle of a bank's Markets Operations as Dagster software-defined assets."""
