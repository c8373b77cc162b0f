"""A cluster of Spark's, on which the dates of a backfill are made: the session, the engine, and what an executor runs.

PySpark is optional (`ml_assets[spark]`). Spark only hands out dates and brings back rows: the features' SQL is run by
the same `AsOfDatabase` as elsewhere, in DuckDB, so there is no second dialect. Reading a lake with Spark needs nothing
of this: its tables are Delta tables.
"""
