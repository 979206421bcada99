"""Captures of links as pcapng files."""
