"""How money, dates, hours, counts and phones are written in a language: Babel's rules, remembered, because Babel is slow.

In an SMS no character of ours may force UCS-2 where the words themselves would fit the GSM alphabet (3GPP TS 23.038, 6.2.1): the
spaces of Babel (U+00A0, U+202F) become plain ones, and a currency sign that GSM lacks becomes a word.
"""

import re
from collections.abc import Callable
from datetime import date as Date  # noqa: N812 - `date` is a filter's name here
from datetime import datetime, tzinfo
from datetime import time as Time  # noqa: N812
from decimal import Decimal
from functools import lru_cache

import phonenumbers
from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_time
from babel.numbers import format_currency, get_currency_symbol

from app.sms.gsm import foreign_characters
from app.sms.latin import in_latin

CURRENCY = re.compile(r"[A-Z]{3}")
LARGEST = Decimal(10) ** 15
LONGEST_PATTERN = 40
LONGEST_TRANSLIT = 2000
NO_PATTERN = "write a length (short, medium, long, full) or a pattern such as `d MMMM y`, `HH:mm`"
NO_MOMENT = "a date or a time is written of one, or of an ISO 8601 string"

_PLAIN_SPACES = str.maketrans({"\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u200e": None, "\u200f": None})
# Sums that tell one way of grouping from another: lakhs, a group only from five digits on, a minus in front or behind.
_PROBES = [Decimal(text) for text in ("0.00", "0.05", "1.50", "999.99", "1000.00", "12345.67", "123456.78", "1234567.25", "9876543210.01")]


class Style:
    """One language's way of writing, in an SMS or elsewhere. Take it from `style_of`: it learns as it is used."""

    def __init__(self, locale: str, *, sms: bool) -> None:
        self.locale, self.sms = _locale(locale), sms
        self._moneys: dict[str, Callable[[Decimal], str]] = {}
        self._plural = lru_cache(maxsize=1000)(self.locale.plural_form)
        self._dates = lru_cache(maxsize=5000)(self._write_date)
        self._times = lru_cache(maxsize=2000)(self._write_time)

    def writes(self, currency: str) -> bool:
        """Whether it has learnt this currency already."""
        return currency in self._moneys

    def money(self, amount: Decimal, currency: str) -> str:
        """`1 234,50 ₽`, in an SMS `1 234,50 руб.`."""
        write = self._moneys.get(currency)
        if write is None:
            if not CURRENCY.fullmatch(currency):
                raise ValueError("write the currency as three capital letters, e.g. RUB")
            write = self._moneys[currency] = self._money_writer(currency)
        return write(amount)

    def date(self, day: Date, form: str | None = None) -> str:
        """In one of Babel's lengths (short, medium, long, full) or by a CLDR pattern (`d MMMM`); without a form with the year in full and few characters."""
        return self._dates(day, form or ("short" if self.locale.language == "ru" else "medium"))

    def time(self, hour: Time, form: str | None = None) -> str:
        return self._times(hour.replace(microsecond=0), form or "short")

    def plural(self, number: Decimal | float, one: str, few: str | None = None, many: str | None = None) -> str:
        """The word that goes with this number. Languages with two forms (English) may leave out the last."""
        few = one if few is None else few
        many = few if many is None else many
        category = self._plural(abs(number))
        if category == "other":  # in Slavic languages a fraction: 1,5 дня
            return few if "many" in self.locale.plural_form.tags and number % 1 else many
        return {"one": one, "two": few, "few": few}.get(category, many)

    def _money_writer(self, currency: str) -> Callable[[Decimal], str]:
        """A way through f-strings, ten times faster, where it writes every probe just as Babel does; otherwise Babel itself, remembered."""

        @lru_cache(maxsize=2000)
        def slow(amount: Decimal) -> str:
            return self._write_money(amount, currency)

        shape = re.fullmatch(r"(\D*)1(\D*)234\2567(\D+)25(\D*)", slow(Decimal("1234567.25")))
        negative = re.fullmatch(r"(\D*)1(\D+)25(\D*)", slow(Decimal("-1.25")))
        if shape is None or negative is None:
            return slow
        before, group, point, after = shape.groups()
        minus_before, _, minus_after = negative.groups()

        def fast(amount: Decimal) -> str:
            digits = f"{amount:,.2f}"
            if digits[0] == "-":
                return minus_before + digits[1:].replace(",", "\0").replace(".", point).replace("\0", group) + minus_after
            return before + digits.replace(",", "\0").replace(".", point).replace("\0", group) + after

        same = all(fast(probe) == slow(probe) and (not probe or fast(-probe) == slow(-probe)) for probe in _PROBES)
        return fast if same else slow

    def _write_money(self, amount: Decimal, currency: str) -> str:
        written: str = format_currency(amount, currency, locale=self.locale)
        symbol = get_currency_symbol(currency, locale=self.locale)
        if self.sms:
            written = written.translate(_PLAIN_SPACES)
            if foreign_characters(symbol):
                written = written.replace(symbol, "руб." if currency == "RUB" and self.locale.language == "ru" else currency)
        # CLDR sets a space between a number and a letter beside it (currencySpacing); Babel does not.
        space = " " if self.sms else "\u00a0"
        return re.sub(r"(?<=[^\W\d])(?=-?\d)|(?<=\d)(?=[^\W\d])", space, written)

    def _write_date(self, day: Date, form: str) -> str:
        if len(form) > LONGEST_PATTERN:
            raise ValueError("keep the pattern of a date under 40 characters")
        try:
            written = format_date(day, form, locale=self.locale)
        except (ValueError, LookupError, AttributeError, TypeError):  # Babel has no error of its own for a pattern
            raise ValueError(NO_PATTERN) from None
        return self._in_sms(written)

    def _write_time(self, hour: Time, form: str) -> str:
        if len(form) > LONGEST_PATTERN:
            raise ValueError("keep the pattern of a time under 40 characters")
        try:
            written = format_time(hour, form, locale=self.locale)
        except (ValueError, LookupError, AttributeError, TypeError):
            raise ValueError(NO_PATTERN) from None
        return self._in_sms(written)

    def _in_sms(self, written: str) -> str:
        return written.translate(_PLAIN_SPACES) if self.sms else written


@lru_cache(maxsize=200)
def style_of(locale: str, *, sms: bool) -> Style:
    return Style(locale, sms=sms)


def _locale(name: str) -> Locale:
    """The nearest locale that Babel knows; English for a language that nobody knows."""
    for tag in (name, re.split("[-_]", name)[0], "en"):
        try:
            return Locale.parse(tag.replace("-", "_"))
        except (UnknownLocaleError, ValueError):
            continue
    raise AssertionError


def as_amount(value: object) -> Decimal:
    """A number or a string of digits as the Decimal that it says. ValueError for everything else, and for sums beyond a quadrillion."""
    if type(value) is Decimal:
        amount = value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        amount = Decimal(str(value))
    elif isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,6})?", value):
        amount = Decimal(value)
    else:
        raise ValueError('money is written of a number or of a string such as "123.45"')
    if not amount.is_finite() or abs(amount) >= LARGEST:
        raise ValueError("this is no sum of money")
    return amount


def as_day(value: object, zone: tzinfo) -> Date:
    """The day of a date, or of an instant on the clock of `zone`; strings as ISO 8601 writes them."""
    if isinstance(value, str):
        value = _read(value)
    if isinstance(value, datetime):
        return (value.astimezone(zone) if value.tzinfo else value).date()
    if isinstance(value, Date):
        return value
    raise ValueError(NO_MOMENT)


def as_hour(value: object, zone: tzinfo) -> Time:
    if isinstance(value, str):
        value = _read(value)
    if isinstance(value, datetime):
        return (value.astimezone(zone) if value.tzinfo else value).time()
    raise ValueError(NO_MOMENT)


def _read(text: str) -> Date:
    try:
        return datetime.fromisoformat(text) if len(text) > 10 else Date.fromisoformat(text)
    except ValueError:  # Python's own sentence quotes the text, which may be somebody's
        raise ValueError(NO_MOMENT) from None


@lru_cache(maxsize=10_000)
def phone(number: str) -> str:
    """`+7 916 123-45-67` of `+79161234567`; what is no international number stays as it is."""
    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        return number
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.INTERNATIONAL)


@lru_cache(maxsize=2000)
def translit(text: str) -> str:
    """Cyrillic in Latin letters, with the quotes, dashes and signs that GSM lacks."""
    if len(text) > LONGEST_TRANSLIT:
        raise ValueError("transliterate at most 2,000 characters")
    return in_latin(text)
