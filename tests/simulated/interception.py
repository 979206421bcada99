"""Somebody between a simulated process and its core: what is compiled cannot be altered, only stood before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from proxy.core.host import Host

#: (the core's own `handle`, an event, the time) -> effects
Handler = Callable[[Callable[..., list[Any]], Any, float], list[Any]]


class Intercepted:
    """Looks like *core*, but *handler* is asked first."""

    def __init__(self, core: Any, handler: Handler) -> None:
        self._core, self._handler = core, handler

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self._core)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)

    def handle(self, event: Any, *, now_s: float) -> list[Any]:
        return self._handler(self._core.handle, event, now_s)


def intercept(process: Any, handler: Handler, *, application: bool = True) -> None:
    """Put *handler* before the core of a simulated process; of a host's two, the *application* or the forwarder."""
    core: Any = process.core
    if not isinstance(core, Host):
        process.core = Intercepted(core, handler)
    else:
        part = "application" if application else "forwarder"
        setattr(core, part, Intercepted(getattr(core, part), handler))
