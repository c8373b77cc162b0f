"""Which securities will have large fails at the central counterparty on the next settlement date."""
