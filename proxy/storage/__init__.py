"""The digest log on disk: an SQLite database per service proxy, and the thread that writes it."""
