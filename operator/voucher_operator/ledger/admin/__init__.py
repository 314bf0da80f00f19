"""What administrators run: verify, export, and the end of stale sessions."""
