"""The rehearsal: a year of settlement_fails in one command, day by day as it would be live, through the real stages.

`plan` says what happens when, `play` plays it, `account` adds up what it cost and what was recovered, `page` tells the
story. The stages, the broker, the lake, the registry and the ledger are those of production; the market is simulated.
"""
