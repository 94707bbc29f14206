"""A text registered with an operator, with gaps, against what is sent: one that differs is billed as another class of traffic.

    %w   one word: 1-60 characters without a space
    %d   digits, at least one
    %*   anything, nothing too, up to 60 characters
    %%   a percent sign

All else is itself. There is no backtracking: the places in the text that a beginning of the pattern can reach are the bits of one integer, and each
step of the pattern moves them all at once. So the work is the length of the pattern times that of the text, whatever stands in them.
"""

import re
from collections.abc import Callable

LONGEST_GAP = 60  # characters
MOST_GAPS = 50

_STEP = re.compile(r"%[wd*%]|[^%]+|%", re.DOTALL)


class Registered:
    """One pattern, ready to be compared. ValueError where it has more than 50 gaps."""

    def __init__(self, pattern: str) -> None:
        self._steps: list[str] = _STEP.findall(pattern)
        if sum(step in ("%w", "%d", "%*") for step in self._steps) > MOST_GAPS:
            raise ValueError("Keep the pattern under 50 gaps.")

    def misfit(self, text: str) -> int | None:
        """None when the text is as registered; else how many of its characters can be, from the beginning."""
        places = _Places(text)
        reached = furthest = 1  # bit n: n characters of the text are used up
        for step in self._steps:
            if step == "%w":
                reached = places.run(reached, places.dark, LONGEST_GAP)
            elif step == "%d":
                reached = places.run(reached, places.digits, len(text))
            elif step == "%*":
                reached |= places.run(reached, places.all, LONGEST_GAP)
            else:
                for character in "%" if step == "%%" else step:
                    furthest |= reached
                    reached = (reached & places.of(character)) << 1
            furthest |= reached
            if not reached:
                break
        return None if reached >> len(text) & 1 else furthest.bit_length() - 1


class _Places:
    """Where in a text which characters stand, as bits."""

    def __init__(self, text: str) -> None:
        self._at: dict[str, int] = {}
        for position, character in enumerate(text):
            self._at[character] = self._at.get(character, 0) | 1 << position
        self.all = (1 << len(text)) - 1
        self.digits = self._joined(lambda character: character in "0123456789")
        self.dark = self._joined(lambda character: not character.isspace())

    def of(self, character: str) -> int:
        return self._at.get(character, 0)

    def _joined(self, wanted: Callable[[str], bool]) -> int:
        bits = 0
        for character, places in self._at.items():
            if wanted(character):
                bits |= places
        return bits

    @staticmethod
    def run(reached: int, among: int, most: int) -> int:
        """The ends of 1 to `most` characters of these, begun at any place that is reached."""
        ends, step = 0, reached
        for _ in range(most):
            step = (step & among) << 1
            if not step:
                break
            ends |= step
        return ends
