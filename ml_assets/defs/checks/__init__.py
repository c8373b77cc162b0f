"""Asset checks on the results of each stage. A blocking check stops the assets downstream in its run."""
