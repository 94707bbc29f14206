"""What a session needs to know of the rest: whom it tells of its life, and where its submits come from."""

import math
from typing import Protocol


class FarSide(Protocol):
    """What the session tells of its life. Nothing here may block; errors must not leave."""

    def connecting(self) -> bool: ...  # False: not now
    def not_opened(self, error: str, *, is_connected: bool) -> None: ...
    def refused(self, status: int) -> bool: ...  # False: no other host would say otherwise
    def all_failed(self) -> None: ...
    def bound(self) -> None: ...
    def delivered(self, command: int, sequence: int, body: bytes) -> None: ...
    def tick(self, now: float) -> str | None: ...
    def retiring(self, why: str) -> None: ...
    def has_unanswered(self) -> bool: ...
    def lost(self, why: str) -> None: ...


class Submits(Protocol):
    """Where submits come from and their answers go. The sequence numbers of everything else are taken from the same row."""

    def submit_answered(self, sequence: int, status: int, identity: bytes) -> None: ...
    def write_due(self) -> tuple[bytes, float]: ...
    def next_sequence(self) -> int: ...
    def has_unanswered(self) -> bool: ...


class NoSubmits:
    """Of a receiver: nothing goes out on it but answers and enquiries."""

    def __init__(self) -> None:
        self._sequence = 0

    def submit_answered(self, sequence: int, status: int, identity: bytes) -> None:
        """Nobody has asked anything; a nack of an enquiry, perhaps."""

    def write_due(self) -> tuple[bytes, float]:
        return b"", math.inf

    def next_sequence(self) -> int:
        self._sequence = sequence = self._sequence % 0x7FFFFFFF + 1
        return sequence

    def has_unanswered(self) -> bool:
        return False
