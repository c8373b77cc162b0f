"""Alerts: from what a rule found to what people are told. Nothing here reads a file, a clock or a database."""
