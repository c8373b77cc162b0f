"""Predictions: rows and a model in, scores with provenance out. Pure: tables in, tables out."""
