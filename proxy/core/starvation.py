"""Does this node get the processor when it needs it? Where not, it beats more slowly, and is slower to call others dead.

A machine that runs more nodes than it can would else do nothing but heartbeats: they come late, faces and clients are given
up, and what follows from that is more work still. What is said of a peer that we had no time to listen to is worth nothing.
"""

from __future__ import annotations

from typing import Final

#: Timers this late on average are no reason to do anything; it is what a run may have and still be called faithful.
TOLERATED_LAG_S: Final = 0.005
#: What one timer counts at most: a single stop, however long, changes nothing.
LAG_MAX_S: Final = 0.040
#: Weight of one timer in the average.
GAIN: Final = 1 / 8
STRETCH_MAX: Final = 4.0


class Starvation:
    """How late the timers of one core fire."""

    def __init__(self) -> None:
        self.stretch = 1.0  #: by how much intervals and detection times are longer now
        self._lag_s = 0.0

    def note(self, deadline_s: float | None, now_s: float) -> bool:
        """A timer that was due at *deadline_s* fires; tell whether the stretch has changed.

        >>> starvation = Starvation()
        >>> starvation.note(1.0, 1.001), starvation.stretch
        (False, 1.0)
        """
        if deadline_s is None or now_s < deadline_s:
            return False
        self._lag_s += GAIN * (min(now_s - deadline_s, LAG_MAX_S) - self._lag_s)
        before, self.stretch = self.stretch, min(STRETCH_MAX, max(1.0, self._lag_s / TOLERATED_LAG_S))
        return self.stretch != before
