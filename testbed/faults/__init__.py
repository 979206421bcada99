"""Faults: what can be broken on purpose, how faults on one element add up, and the injector that applies them on time."""
