"""How many sync interests to keep armed for one remote stream: as many as its rate and the round trip ask for.

An entry that finds its sync interest waiting takes one path delay; one that is asked for too late takes up to a round trip
more. Which of the two it was, the time between asking and answer tells: an answer that comes about one round trip after the
question was there before the question.
"""

from __future__ import annotations

from typing import Final

#: Sync interests kept armed per stream while all is quiet. One allows one entry a round trip; the others cost one
#: packet a link per lifetime and save a push when publishers burst.
ARMED_MIN: Final = 4
#: Once so many have been enough for so long, half as many are kept, if those would have been enough too.
NARROW_AFTER_S: Final = 5.0
#: An answer within so many round trips was hardly waited for.
LATE_RATIO: Final = 1.5
#: Half the width halves the time that a sync interest waits; it must not come near LATE_RATIO.
AMPLE_RATIO: Final = 2.5 * LATE_RATIO
#: Answers that were waited for longer say nothing about rate or round trip.
AGE_MAX_S: Final = 1.0


class ArmedWidth:
    """One per remote proxy and conference."""

    def __init__(self) -> None:
        self.width = ARMED_MIN
        self._since_s = float("-inf")  #: when the width was last changed, or last too small
        self._round_trip_s = float(
            "inf"
        )  #: shortest time from question to answer: to the origin, or a store on the way
        self._recent_s = float("inf")  #: shortest since ``_since_s``

    def answered(self, age_s: float, armed_max: int, *, now_s: float) -> None:
        """An armed sync interest was answered *age_s* after it was first sent."""
        if age_s > AGE_MAX_S:
            return
        is_first = self._round_trip_s == float("inf")  # nothing to compare it with
        self._round_trip_s = min(self._round_trip_s, age_s)
        self._recent_s = min(self._recent_s, age_s)
        if not is_first and age_s <= LATE_RATIO * self._round_trip_s:
            self.widen(armed_max, now_s=now_s)

    def pushed(self, age_s: float, armed_max: int, *, now_s: float) -> None:
        """An entry was pushed *age_s* after we had asked for it, 0 if we had not: with the question still under way, too late."""
        if age_s <= LATE_RATIO * self._round_trip_s:
            self.widen(armed_max, now_s=now_s)

    def widen(self, armed_max: int, *, now_s: float) -> None:
        """Double the width, once per round trip: what is under way was sent under the last width."""
        if self.width >= armed_max:
            self._since_s = now_s
        elif self._round_trip_s == float("inf") or now_s - self._since_s >= self._round_trip_s:
            self.width = min(2 * self.width, armed_max)
            self._since_s, self._recent_s = now_s, float("inf")

    def narrow(self, *, now_s: float) -> bool:
        """Halve a width that has been ample for a while; tell whether it was."""
        if self.width <= ARMED_MIN or now_s - self._since_s <= NARROW_AFTER_S:
            return False
        ample = self._recent_s > AMPLE_RATIO * min(self._round_trip_s, AGE_MAX_S)
        if ample:
            self.width = max(ARMED_MIN, self.width // 2)
        self._since_s, self._recent_s = now_s, float("inf")
        return ample
