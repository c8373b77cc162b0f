"""Asset checks: what each stage's result is held against. Blocking ones stop the assets downstream in their run."""
