"""The shell: Mininet's CLI at a terminal, over a network that is up and that others look after meanwhile."""
