"""Input for a laptop: a simulated market with a known truth, and the replay of public data."""
