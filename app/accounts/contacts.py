"""Addresses in one form: phones in E.164 with +, e-mail addresses with their domain in ASCII.

One person, one address: what is stored is what is compared, suppressed, sent to and searched.
"""

import re
from functools import lru_cache

import phonenumbers
from email_validator import EmailNotValidError, validate_email
from phonenumbers import NumberParseException, PhoneNumber, PhoneNumberFormat, ValidationResult
from phonenumbers.phonemetadata import PhoneMetadata

# RFC 5321, 4.5.3.1: 64 octets before the @, and 254 are what fits a path of 256 with its angle brackets.
EMAIL_OCTETS, LOCAL_OCTETS = 254, 64

_canonical_phone = re.compile(r"\+[1-9][0-9]{6,14}").fullmatch
# What people write between digits. Letters are refused before the library sees them: it would read 8-800-FLOWERS on a telephone's keys.
_written_phone = re.compile(r"[ \u00a0]*\+?[0-9(][0-9 \u00a0().\-]*").fullmatch
# Plain addresses, which nearly all are; whatever else there may be goes the long way.
_plain_email = re.compile(r"[A-Za-z0-9_+%-]+(?:\.[A-Za-z0-9_+%-]+)*@(?:[A-Za-z0-9](?:[A-Za-z0-9]|-(?!-)){0,61}(?<!-)\.)+[A-Za-z]{2,63}", re.ASCII).fullmatch
_control = re.compile(r"[\x00-\x1f\x7f-\x9f]").search


class AddressError(ValueError):
    """It is no address of its channel: `code` for programs, the sentence says what is wrong with it."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def normalise(channel: str, address: str, region: str) -> str:
    """The one form of this address, or AddressError. `region` is where a number without a country code is dialled (ISO 3166)."""
    return normalise_phone(address, region) if channel == "sms" else normalise_email(address)


def normalise_phone(written: str, region: str) -> str:
    """`8 916 123-45-67` (dialled in RU) as `+79161234567`.

    A number must be possible, that is of a length that its country has; ranges come and go faster than any table of them.
    """
    if _canonical_phone(written) and _is_settled(written[:5], len(written)):
        return written
    if len(written) > 40 or not _written_phone(written):
        raise AddressError(
            "phone_malformed", "A phone number has digits, spaces, hyphens, dots and brackets, and a + at its beginning alone: write e.g. +79161234567."
        )
    phone = _read_phone(written, region)
    if _read_phone(phone, region) != phone:  # a national prefix within a national prefix (+20 00...): whose number it is nobody can say
        raise AddressError("phone_malformed", "This can be read as two phone numbers: write it without the prefix that is dialled within its country.")
    return phone


def _read_phone(written: str, region: str) -> str:
    try:
        number = phonenumbers.parse(written, region)
    except NumberParseException:
        raise AddressError("phone_malformed", "This cannot be read as a phone number: write it with its country code, e.g. +79161234567.") from None
    if phonenumbers.is_possible_number_with_reason(number) != ValidationResult.IS_POSSIBLE:
        raise AddressError("phone_impossible", f"No phone number of +{number.country_code} has this many digits: check it, and write it with its country code.")
    return phonenumbers.format_number(number, PhoneNumberFormat.E164)


@lru_cache(maxsize=4096)
def _is_settled(beginning: str, length: int) -> bool:
    """Whether a canonical number that begins so and is so long stands in its one form already. `beginning`: the + and four digits.

    Not where a national prefix may have slipped in after the country code (+7 8...): that one is for the library to judge.
    """
    for octets in (1, 2, 3):
        code = int(beginning[1 : 1 + octets])
        region = phonenumbers.region_code_for_country_code(code)
        if region == phonenumbers.UNKNOWN_REGION:
            continue
        metadata = PhoneMetadata.metadata_for_region_or_calling_code(code, region)
        if metadata is None:
            return False
        prefix = metadata.national_prefix_for_parsing
        after = beginning[1 + octets :]
        if prefix is not None and (not prefix.isdigit() or prefix[: len(after)] == after[: len(prefix)]):
            return False
        sample = PhoneNumber(country_code=code, national_number=int("2" * (length - 1 - octets)))
        return bool(phonenumbers.is_possible_number_with_reason(sample) == ValidationResult.IS_POSSIBLE)
    return False


def normalise_email(written: str) -> str:
    """The address with its domain in lower case and in ASCII (IDNA 2008); the part before the @ belongs to the other side and stays."""
    written = written.strip(" ")
    if len(written) > EMAIL_OCTETS:
        raise AddressError("email_too_long", f"An e-mail address has at most {EMAIL_OCTETS} characters (RFC 5321, 4.5.3.1).")
    if _control(written):
        raise AddressError("email_malformed", "An e-mail address has no line breaks or other control characters.")
    local, _, domain = written.rpartition("@")
    if _plain_email(written) and len(local) <= LOCAL_OCTETS:
        return f"{local}@{domain.lower()}"
    try:
        # No DNS: a look-up in an import of a million lines, or a name server that is down, must not decide what is stored.
        # Special names (.test, .local) are let through: a provider's own mail may well live there.
        found = validate_email(written, check_deliverability=False, globally_deliverable=False, allow_smtputf8=False)
    except EmailNotValidError as error:
        raise AddressError("email_malformed", str(error)) from None
    if len(found.local_part) > LOCAL_OCTETS:
        raise AddressError("email_too_long", f"The part before the @ has at most {LOCAL_OCTETS} characters (RFC 5321, 4.5.3.1).")
    if "." not in found.ascii_domain or found.ascii_domain[-1].isdigit() or found.ascii_email is None:
        raise AddressError("email_malformed", "After the @ stands no domain name: write e.g. subscriber@example.org.")
    if len(found.ascii_email) > EMAIL_OCTETS:
        raise AddressError("email_too_long", f"An e-mail address has at most {EMAIL_OCTETS} octets, its domain in ASCII (RFC 5321, 4.5.3.1).")
    return found.ascii_email
