"""Message ids as real SMSCs write them: one number, many forms, and not always the same form in the answer and in the receipt."""

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
    wrap: Annotated[int, Field(ge=1)] | None = None
    one_for_all_parts: bool = False


class Identities:
    """Hands out numbers, and writes them."""

    def __init__(self, ids: Ids) -> None:
        self._ids, self._given = ids, 0
        self._of_message: dict[tuple[str, str, int], int] = {}

    def number(self, message: tuple[str, str, int] | None) -> int:
        """A new one; or, for a message of several parts whose parts share theirs, the one that its first part got."""
        if message is None or not self._ids.one_for_all_parts:
            return self._next()
        if message not in self._of_message:
            self._of_message[message] = self._next()
        return self._of_message[message]

    def forget(self, message: tuple[str, str, int]) -> None:
        """All its parts are there: the next message with this reference is another one."""
        self._of_message.pop(message, None)

    def of_answer(self, number: int) -> str:
        return FORMS[self._ids.answer](number)

    def of_receipt(self, number: int, form: str | None = None) -> str:
        return FORMS[form or self._ids.receipt or self._ids.answer](number)

    def _next(self) -> int:
        place = self._given % self._ids.wrap if self._ids.wrap else self._given
        self._given += 1
        return self._ids.first + place
