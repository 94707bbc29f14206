"""Why a message was not delivered: the error code of a receipt as a reason that a person can read.

The codes are those of the mobile network as SMSCs pass them on; what one SMSC means otherwise stands in `error_reasons` of its profile, which wins.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

# Local error values of 3GPP TS 29.002, 17.6.6: what the `err` of most receipts and a network_error_code of type 3 (GSM; SMPP 3.4, 5.3.2.31) carry.
MAP_ERRORS = {
    1: "unknown_subscriber",
    5: "unidentified_subscriber",
    6: "absent_subscriber",
    8: "roaming_not_allowed",
    9: "illegal_subscriber",
    10: "service_not_provisioned",
    11: "service_not_provisioned",
    12: "illegal_equipment",
    13: "call_barred",
    21: "facility_not_supported",
    27: "absent_subscriber",
    28: "incompatible_terminal",
    31: "subscriber_busy",
    32: "delivery_failure",
    33: "waiting_list_full",
    34: "system_failure",
    35: "protocol_error",
    36: "protocol_error",
}
# A full memory has no error value of its own there: RP-Cause 22 (3GPP TS 24.011, 8.2.5.4), TP-FCS 0xD0 and 0xD3 (3GPP TS 23.040, 9.2.3.22).
MEMORY_FULL = dict.fromkeys((22, 0xD0, 0xD3), "memory_full")
REASONS: Mapping[int, str] = MappingProxyType(MAP_ERRORS | MEMORY_FULL)
WORDS = frozenset(REASONS.values())

_GSM = "3"
_DECIMAL = re.compile(r"[0-9]{1,9}")
_HEX = re.compile(r"0X([0-9A-F]{1,8})|([0-9A-F]{2,4})")


def reasons(given: Mapping[str, str]) -> Callable[[str, str], str | None]:
    """Makes (err, network_error_code) the reason of one gateway: its own word for exactly this code, then for the same number written otherwise, then the common one."""
    exact = {key.strip().upper(): reason for key, reason in given.items()}
    alike: dict[str, str] = {}
    for key, reason in exact.items():
        alike.setdefault(_plain(key), reason)

    def reason_of(err: str, network_error: str) -> str | None:
        codes = [code.strip().upper() for code in (network_error, err) if code]
        for code in codes:
            if found := exact.get(code) or alike.get(_plain(code)):
                return found
        for code in codes:
            if found := _commonly(code):
                return found
        return None

    return reason_of


def is_error(code: str) -> bool:
    """Whether it says that something went wrong: zeros, in whatever form, do not."""
    return bool(code.rpartition(":")[2].upper().removeprefix("0X").strip("0"))


def _commonly(code: str) -> str | None:
    kind, colon, code = code.rpartition(":")
    if colon and kind != _GSM:
        return None  # of another kind of network
    plain = _plain(code)
    if _DECIMAL.fullmatch(plain):
        return REASONS.get(int(plain))
    word = code.lower().replace("-", "_").replace(" ", "_")
    return word if word in WORDS else None


def _plain(code: str) -> str:
    """A number in one form, whichever it was written in: 027, 27, 0x1B and 1B are alike. A word stays."""
    kind, colon, code = code.rpartition(":")
    if _DECIMAL.fullmatch(code):
        code = str(int(code))
    elif found := _HEX.fullmatch(code):
        code = str(int(found[1] or found[2], 16))
    return kind + colon + code
