"""A way that comes and goes is not trusted at once when it comes back: traffic that has to leave it again is worse off.

As route flap damping (RFC 2439), only simpler: one failure costs nothing (after a partition, every way is one that has just come
back, and to look for others takes half a second), and the time to wait doubles with each return that did not last.
"""

from __future__ import annotations

from typing import Final

#: A return that has lasted for so long, after its hold-down, is none that needs damping.
LASTING_S: Final = 10.0


class HoldDown:
    """Of one face. It is told of every change; ``until_s`` is when the face may be preferred to others again.

    >>> hold_down = HoldDown(1.0, max_s=30.0)
    >>> hold_down.note(0.0, up=True)
    >>> for at_s in (30.0, 35.0, 37.0):
    ...     hold_down.note(at_s, up=False)
    ...     hold_down.note(at_s + 0.5, up=True)
    ...     print(hold_down.until_s - hold_down.returned_s)
    0.0
    1.0
    2.0
    """

    def __init__(self, first_s: float, *, max_s: float) -> None:
        self.until_s = float("-inf")
        self.returned_s = float("-inf")  #: when it last came back
        self._wait_s = 0.0
        self._first_s, self._max_s = first_s, max_s
        self._has_been_up = False

    def note(self, now_s: float, *, up: bool) -> None:
        """It has come up, or gone down. The first time that it comes up is no return."""
        if up:
            if self._has_been_up:
                self.returned_s, self.until_s = now_s, now_s + self._wait_s
            self._has_been_up = True
        elif now_s - self.returned_s >= self._wait_s + LASTING_S:
            self._wait_s = 0.0
        else:
            self._wait_s = min(max(self._first_s, 2 * self._wait_s), self._max_s)
