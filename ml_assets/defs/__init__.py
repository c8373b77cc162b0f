"""Dagster, all of it: assets, checks, jobs, schedules, sensors and resources. No logic lives here.

A module here reads, calls one function of `lifecycle`, and shows what it returns. Rules, SQL and I/O belong to the
packages beside this one, none of which may import Dagster.
"""
