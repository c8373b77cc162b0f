"""Whether a model in use is still good: outcomes of its predictions, performance, drift, and when to retrain.

These modules are pure: tables in, tables out. The stages of `lifecycle.monitoring` read and write.
"""
