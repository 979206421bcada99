"""Alternatives to service proxies, each as its specification has it, on the same forwarders, faces and records."""
