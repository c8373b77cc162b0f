"""Which settlement instructions will not be fully settled by the cut-off on their intended settlement date."""
