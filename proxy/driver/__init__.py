"""The trio driver: cores on real sockets, clocks and files."""
