"""The forwarder's tables, named as in NFD: FIB, PIT, content store, dead nonce list."""
