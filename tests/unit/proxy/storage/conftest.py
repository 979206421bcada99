"""What a test opens is closed when it ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.proxy.storage.logs import close_all


@pytest.fixture(autouse=True)
def _closed_stores() -> Iterator[None]:
    yield
    close_all()
