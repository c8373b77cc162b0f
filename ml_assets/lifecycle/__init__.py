"""The stages of the lifecycle as plain functions: read, compute, write, report.

Here the pure packages meet the lake, the registry and the database; the Dagster assets only call these functions
and show what they return. Nothing here imports Dagster, so a stage costs the same in a notebook or a benchmark.
"""
