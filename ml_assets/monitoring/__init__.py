"""Whether models still hold once they score: what came of predictions, how good they were, what has moved, what to do.

Pure: tables in, tables out. The stages of `lifecycle.monitoring` read and write.
"""
