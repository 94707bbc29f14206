"""Message ids as real SMSCs write them: one number, many forms, and not always the same form in the answer and in the receipt."""

import itertools
from collections.abc import Callable
from hashlib import md5
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

IdForm = Literal["dec", "zeros", "hex", "hex_lower", "hex_zeros", "uuid", "uuid_upper", "uuid_plain"]


def _uuid(number: int) -> UUID:
    return UUID(bytes=md5(str(number).encode(), usedforsecurity=False).digest(), version=4)


FORMS: dict[str, Callable[[int], str]] = {
    "dec": str,
    "zeros": lambda number: f"{number:010d}",
    "hex": lambda number: f"{number:X}",
    "hex_lower": lambda number: f"{number:x}",
    "hex_zeros": lambda number: f"{number:08X}",
    "uuid": lambda number: str(_uuid(number)),
    "uuid_upper": lambda number: str(_uuid(number)).upper(),
    "uuid_plain": lambda number: _uuid(number).hex,
}


class Ids(BaseModel):
    """`wrap`: after so many ids they begin again. `one_for_all_parts`: the parts of a long message share one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    answer: IdForm = "dec"
    receipt: IdForm | None = None  # None: as in the answer
    first: Annotated[int, Field(ge=0, le=2**63)] = 1
    wrap: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    one_for_all_parts: bool = False


class Identities:
    """Hands out numbers; `of_answer` and `of_receipt` write them."""

    def __init__(self, ids: Ids) -> None:
        self._ids = ids
        self._numbers = itertools.count(ids.first) if ids.wrap is None else itertools.cycle(range(ids.first, ids.first + ids.wrap))
        self._of_message: dict[tuple[str, str, int], int] = {}
        self.of_answer = FORMS[ids.answer]
        self.of_receipt = FORMS[ids.receipt or ids.answer]

    def number(self, message: tuple[str, str, int] | None) -> int:
        """A new one; or, for a message of several parts whose parts share theirs, the one that its first part got."""
        if message is None or not self._ids.one_for_all_parts:
            return next(self._numbers)
        if message not in self._of_message:
            self._of_message[message] = next(self._numbers)
        return self._of_message[message]

    def forget(self, message: tuple[str, str, int]) -> None:
        """All its parts are there: the next message with this reference is another one."""
        self._of_message.pop(message, None)
