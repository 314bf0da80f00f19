"""The schema: migrations, the checks before and after them, and the backfills."""
