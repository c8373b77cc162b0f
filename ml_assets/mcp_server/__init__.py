"""What programs and agents ask, by the Model Context Protocol: a few tools that read, over stdio or HTTP.

Here belong the tools (`tools`), how text of others is marked in their answers (`marking`), and how they are served
(`server`). What they read is read by the functions that the command line calls too. Nothing here writes, and nothing
imports Dagster or what fits models.
"""
