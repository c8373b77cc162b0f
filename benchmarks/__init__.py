"""Benchmarks: `make bench` and its brothers; results go to docs/benchmarks*.md."""
