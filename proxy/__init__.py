"""Protocol: cores without I/O, their wire formats, and the node program that drives them. Imports nothing of ours."""

from proxy.compiled import prefer_compiled

prefer_compiled()
