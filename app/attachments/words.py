"""The words, dates and sums of made files, in Russian and English. A text of somebody else's loses what has no place in a line."""

import re
import tomllib
import unicodedata
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

from babel.dates import format_date
from babel.numbers import get_currency_symbol

WORDING = Path(__file__).with_name("wording.toml")
NBSP = "\u00a0"


class Words:
    """One language. Take it from `words_of`. A name that the wording has not is a KeyError."""

    def __init__(self, language: str, said: Mapping[str, str]) -> None:
        self.language, self._said = language, said

    def __call__(self, name: str, **values: object) -> str:
        return self._said[name].format(**values) if values else self._said[name]

    def number(self, amount: Decimal) -> str:
        """`1 234,50`, `1,234.50`; a minus that a column of figures can be read by."""
        digits = f"{amount:,.2f}" if amount else "0.00"
        if self.language == "ru":
            digits = digits.replace(",", NBSP).replace(".", ",")
        return digits.replace("-", "\u2212")

    def plain_number(self, amount: Decimal) -> str:
        """As a spreadsheet of this language reads a number: `-1234,50`."""
        digits = f"{amount:.2f}" if amount else "0.00"
        return digits.replace(".", ",") if self.language == "ru" else digits

    def money(self, amount: Decimal, currency: str) -> str:
        """`1 234,50 ₽`, `1,234.50 RUB`."""
        return f"{self.number(amount)}{NBSP}{symbol(self.language, currency)}"

    def day(self, day: date) -> str:
        return _day(self.language, day)


@lru_cache(maxsize=1000)
def _day(language: str, day: date) -> str:
    return str(format_date(day, "dd.MM.yyyy" if language == "ru" else "d MMM yyyy", locale=language))


@lru_cache(maxsize=200)
def symbol(language: str, currency: str) -> str:
    """The sign that this language has for the currency, or its three letters."""
    return str(get_currency_symbol(currency, locale=language))


@lru_cache(maxsize=2)
def _languages() -> dict[str, dict[str, str]]:
    return tomllib.loads(WORDING.read_text("utf-8"))


@lru_cache(maxsize=200)
def words_of(locale: str) -> Words:
    """Russian for `ru` and its regions, English for everybody else."""
    language = "ru" if re.split("[-_]", locale)[0].lower() == "ru" else "en"
    return Words(language, _languages()[language])


def one_line(text: str) -> str:
    """The text in one line, without characters that cannot be seen or that turn others round."""
    kept = "".join(character if unicodedata.category(character)[0] != "C" else " " if character in "\t\r\n" else "" for character in text)
    return " ".join(kept.split())
