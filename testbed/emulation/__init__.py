"""Emulation: Mininet hosts in real namespaces, wire links between them, node processes inside, all gone at the end."""
