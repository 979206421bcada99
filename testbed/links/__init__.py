"""The `wire` link back end: TAP interfaces in the hosts' namespaces, and one emulator process that carries the frames."""
