"""The application's PostgreSQL database: predictions, the work-list, and the migrations that make them."""
