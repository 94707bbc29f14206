"""Letters that wait for a connection, in their order. Some mail servers count: `per_domain` keeps the letters on the wire to one domain below a number."""

from collections import Counter, deque

from app.sending.smtp.mime import Letter


class Waiting:
    """`most` letters at once to each recipient domain; none: any number, and nothing is counted."""

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._letters: deque[tuple[Letter, float]] = deque()
        self._busy: Counter[str] = Counter()

    def __bool__(self) -> bool:
        return bool(self._letters)

    def append(self, letter: Letter, due: float) -> None:
        """`due`: the time of the loop's clock before which it may not go."""
        self._letters.append((letter, due))

    def take(self) -> tuple[Letter, float] | None:
        """The next letter that may go on the wire, and when it is due. Those to a domain that has its fill are passed over; nothing when there is no other."""
        if self._most is None:
            return self._letters.popleft() if self._letters else None
        for at, (letter, due) in enumerate(self._letters):
            domain = domain_of(letter.to)
            if self._busy[domain] < self._most:
                self._busy[domain] += 1
                del self._letters[at]
                return letter, due
        return None

    def done(self, letter: Letter) -> bool:
        """A letter that was taken is off the wire, whatever became of it. Whether another one may have waited for that."""
        if self._most is None:
            return False
        domain = domain_of(letter.to)
        self._busy[domain] -= 1
        if self._busy[domain] <= 0:
            del self._busy[domain]
        return bool(self._letters)

    def give_back(self) -> Letter:
        """The first of those that have not begun."""
        return self._letters.popleft()[0]


def domain_of(address: str) -> str:
    return address.rpartition("@")[2].rstrip("> ").lower()
