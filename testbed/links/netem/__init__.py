"""The `netem` link back end: veth pairs and the kernel's own queueing disciplines, where it has them."""
