"""A way that has just come back is not trusted at once: traffic that returns to it and has to leave again is worse off.

As route flap damping (RFC 2439), only simpler: the time to wait doubles with each return that did not last.
"""

from __future__ import annotations

from typing import Final

#: A return that has lasted for so long, after its hold-down, is forgotten.
LASTING_S: Final = 10.0


class HoldDown:
    """Of one face. It is told of every change; ``until_s`` is when the face may be preferred to others again.

    >>> hold_down = HoldDown(1.0, max_s=30.0)
    >>> hold_down.note(0.0, up=True)
    >>> for at_s in (10.0, 20.0, 22.0):
    ...     hold_down.note(at_s, up=False)
    ...     hold_down.note(at_s + 0.5, up=True)
    ...     print(hold_down.until_s)
    11.5
    22.5
    26.5
    """

    def __init__(self, first_s: float, *, max_s: float) -> None:
        self.until_s = float("-inf")
        self._wait_s = self._first_s = first_s
        self._max_s = max_s
        self._has_been_up = False
        self._returned_s: float | None = None

    def note(self, now_s: float, *, up: bool) -> None:
        """It has come up, or gone down. The first time that it comes up is no return."""
        if up:
            if self._has_been_up:
                self._returned_s, self.until_s = now_s, now_s + self._wait_s
            self._has_been_up = True
        elif self._returned_s is not None:
            lasted = now_s - self._returned_s >= self._wait_s + LASTING_S
            self._wait_s = self._first_s if lasted else min(2 * self._wait_s, self._max_s)
