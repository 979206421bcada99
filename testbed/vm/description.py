"""Where a program in the guest finds what machine it runs in."""

from __future__ import annotations

from typing import Final

#: Environment variable: a JSON object, which goes into the manifest of a run (machine.py, `describe`).
DESCRIPTION_VARIABLE: Final = "HCONF_VM"
