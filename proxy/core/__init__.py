"""The protocol as machines without I/O: ``handle(event, now_s=...) -> effects``."""
