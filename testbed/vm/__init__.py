"""A virtual machine with a distribution's stock kernel, in which a command of this one runs."""
