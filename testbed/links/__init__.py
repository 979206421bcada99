"""The `wire` link back end: TAP interfaces in the hosts' namespaces, and one emulator process that carries the frames."""

from proxy.compiled import prefer_compiled

prefer_compiled()  # whoever imports the loop gets it compiled, where it is
