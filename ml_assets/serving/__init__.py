"""Scores where the work happens: the features of all open decisions in memory, and the champion's answer to each.

What belongs here: the live table, the open model, the HTTP edge. What does not: a second definition of a feature, of a
score or of who is champion. Nothing here imports Dagster, MLflow, scikit-learn, LightGBM or pandas.
"""
