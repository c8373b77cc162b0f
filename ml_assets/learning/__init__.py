"""Learning: training sets, candidates, calibration, export, metrics and the gate.

Everything here is a function of tables and arrays: no lake, no tracking server, no orchestration.
"""
