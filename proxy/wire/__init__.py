"""What travels: NDN packets, link packets, names and messages. Bytes to structs and back, no I/O."""
