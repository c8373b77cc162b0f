-- @title: Ledger and alias apart
-- @severity: critical
-- @every: 15 minutes
-- @description: The alias champion in MLflow is another model than the ledger says. Nothing scores until a person has put it back. A crash between the two is repaired by itself within minutes.
-- @runbook: ledger-and-alias-apart
-- @message: the alias champion is version {by_alias}, the ledger says version {by_ledger}
-- @for: 15 minutes
SELECT coalesce(by_alias::text, 'none') AS by_alias, coalesce(by_ledger::text, 'none') AS by_ledger
FROM champions
WHERE NOT agrees
