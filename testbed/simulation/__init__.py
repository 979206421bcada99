"""The second driver: the same cores in virtual time."""
