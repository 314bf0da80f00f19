"""The schema: migrations, what they must find, what they must leave, and the backfills after them."""
