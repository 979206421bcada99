"""What all tests share: which need root, how long one may take, how Hypothesis searches."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import hypothesis
import pytest

EMULATION = Path(__file__).parent / "emulation"

#: Of wall clock. An emulation test builds and removes a network or two; a hang ends the test, not the whole run.
EMULATION_LIMIT_S = 120

# No deadline: how long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("hconf", deadline=None, print_blob=True)
hypothesis.settings.load_profile("hconf")

# A shell that starts a job in the background makes it deaf to Ctrl-C, and all that it starts; tests send interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the emulation tests, give them their time, and leave them out where there is no root."""
    for item in items:
        if not item.path.is_relative_to(EMULATION):
            continue
        item.add_marker(pytest.mark.root)
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(EMULATION_LIMIT_S))
        if os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="takes root"))
