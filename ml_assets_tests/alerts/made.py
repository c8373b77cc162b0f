"""Rules made up for tests."""

from ml_assets.alerts.rule import Rule, read_rule

HEAD = """-- @title: Fail rate of a market
-- @severity: warning
-- @every: 15 minutes
-- @description: Far more fails than before.
-- @runbook: fail-rate-of-a-market
-- @message: {market}: {fail_rate|share} of {instructions} instructions failed
-- @key: market
"""
SQL = "SELECT market, fail_rate, instructions FROM outcomes"


def rule(*tags: str, head: str = HEAD, sql: str = SQL, name: str = "fail_rate", use_case: str = "fails") -> Rule:
    """A rule whose head has some tags more."""
    lines = "".join(f"-- @{tag}\n" for tag in tags)
    return read_rule(use_case, name, f"alerts/{name}.sql", head + lines + sql, owner="operations")
