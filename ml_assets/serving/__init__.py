"""The scoring service: it keeps the features of all open decisions in memory and answers with the champion's scores.

The live table, the open model and the HTTP edge belong here. A second definition of a feature, of a score or of the
champion does not. Nothing here imports Dagster, MLflow, scikit-learn, LightGBM or pandas.
"""
