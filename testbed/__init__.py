"""Testbed: builds and breaks networks of real hosts, and starts the node program in them."""
