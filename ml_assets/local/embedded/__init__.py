"""Real servers from wheels, for a laptop and for tests. Production points at its own."""
