"""What packets and events are taken apart into: plain values, compared by what is in them.

They are classes of their own, and no Structs of msgspec, since nearly every packet that passes a node makes some of them and
reads their fields: compiled, that takes no look-up of a name. A node that has slept for a while finds its caches cold, and
waits for memory several times as long as it computes; so what counts is how much code and data a packet touches.
"""

from __future__ import annotations


class Value:
    """Equal to another one of its class with equal fields. Nobody changes one that others may know of."""

    def fields(self) -> tuple[object, ...]:
        """Return all that is in it, in the order of the constructor's arguments."""
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Value) and type(self) is type(other) and self.fields() == other.fields()

    def __hash__(self) -> int:
        return hash(self.fields())

    def __repr__(self) -> str:
        return f"{type(self).__name__}{self.fields()!r}"
