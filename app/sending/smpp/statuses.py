"""What a command_status of a submit means for its message and for the bind. Names: SMPP 3.4, 5.1.3, and SMPP 5.0, 4.7.6.

Overrides of the profile come first, then its throttle_statuses, then the common meaning, then two careful attempts.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from app.gateways.profile import Profile, StatusAction

OK = 0x00
INVCMDLEN = 0x02
INVCMDID = 0x03
ALYBND = 0x05
MSGQFUL = 0x14
RX_T_APPN = 0x64

NAMES = {
    0x00: "ESME_ROK",
    0x01: "ESME_RINVMSGLEN",
    0x02: "ESME_RINVCMDLEN",
    0x03: "ESME_RINVCMDID",
    0x04: "ESME_RINVBNDSTS",
    0x05: "ESME_RALYBND",
    0x06: "ESME_RINVPRTFLG",
    0x07: "ESME_RINVREGDLVFLG",
    0x08: "ESME_RSYSERR",
    0x0A: "ESME_RINVSRCADR",
    0x0B: "ESME_RINVDSTADR",
    0x0C: "ESME_RINVMSGID",
    0x0D: "ESME_RBINDFAIL",
    0x0E: "ESME_RINVPASWD",
    0x0F: "ESME_RINVSYSID",
    0x11: "ESME_RCANCELFAIL",
    0x13: "ESME_RREPLACEFAIL",
    0x14: "ESME_RMSGQFUL",
    0x15: "ESME_RINVSERTYP",
    0x33: "ESME_RINVNUMDESTS",
    0x34: "ESME_RINVDLNAME",
    0x40: "ESME_RINVDESTFLAG",
    0x42: "ESME_RINVSUBREP",
    0x43: "ESME_RINVESMCLASS",
    0x44: "ESME_RCNTSUBDL",
    0x45: "ESME_RSUBMITFAIL",
    0x48: "ESME_RINVSRCTON",
    0x49: "ESME_RINVSRCNPI",
    # 0x4A, 0x4B, 0x4D and 0x4E are reserved in the standard; lists that operators use have moved some codes there.
    0x4A: "ESME_RINVDSTTON",
    0x4B: "ESME_RINVDSTNPI",
    0x4D: "ESME_RINVSYSTYP",
    0x4E: "ESME_RINVREPFLAG",
    0x50: "ESME_RINVDSTTON",
    0x51: "ESME_RINVDSTNPI",
    0x53: "ESME_RINVSYSTYP",
    0x54: "ESME_RINVREPFLAG",
    0x55: "ESME_RINVNUMMSGS",
    0x58: "ESME_RTHROTTLED",
    0x61: "ESME_RINVSCHED",
    0x62: "ESME_RINVEXPIRY",
    0x63: "ESME_RINVDFTMSGID",
    0x64: "ESME_RX_T_APPN",
    0x65: "ESME_RX_P_APPN",
    0x66: "ESME_RX_R_APPN",
    0x67: "ESME_RQUERYFAIL",
    0xC0: "ESME_RINVTLVSTREAM",
    0xC1: "ESME_RTLVNOTALLWD",
    0xC2: "ESME_RINVTLVLEN",
    0xC3: "ESME_RMISSINGTLV",
    0xC4: "ESME_RINVTLVVAL",
    0xFE: "ESME_RDELIVERYFAILURE",
    0xFF: "ESME_RUNKNOWNERR",
    0x100: "ESME_RSERTYPUNAUTH",
    0x101: "ESME_RPROHIBITED",
    0x102: "ESME_RSERTYPUNAVAIL",
    0x103: "ESME_RSERTYPDENIED",
    0x104: "ESME_RINVDCS",
    0x105: "ESME_RINVSRCADDRSUBUNIT",
    0x106: "ESME_RINVDSTADDRSUBUNIT",
    0x107: "ESME_RINVBCASTFREQINT",
    0x108: "ESME_RINVBCASTALIAS_NAME",
    0x109: "ESME_RINVBCASTAREAFMT",
    0x10A: "ESME_RINVNUMBCAST_AREAS",
    0x10B: "ESME_RINVBCASTCNTTYPE",
    0x10C: "ESME_RINVBCASTMSGCLASS",
    0x10D: "ESME_RBCASTFAIL",
    0x10E: "ESME_RBCASTQUERYFAIL",
    0x10F: "ESME_RBCASTCANCELFAIL",
    0x110: "ESME_RINVBCAST_REP",
    0x111: "ESME_RINVBCASTSRVGRP",
    0x112: "ESME_RINVBCASTCHANIND",
}

# A bind that is refused with these will be refused again until somebody changes the settings. 0x4D is INVSYSTYP in some lists.
FATAL_TO_BIND = frozenset({0x0E, 0x0F, 0x4D, 0x53})

_PERM = (0x01, 0x0B, 0x0C, 0x11, 0x13, 0x33, 0x34, 0x40, 0x42, 0x44, 0x55, 0x62, 0x65, 0x66, 0x67, 0xFE, *range(0x105, 0x113))
_BRK = (0x06, 0x07, 0x0A, 0x15, 0x43, 0x48, 0x49, 0x4A, 0x4B, 0x4E, 0x50, 0x51, 0x54, 0x61, 0x63, *range(0xC0, 0xC5), 0x104)
_REBIND = (0x02, 0x03, 0x04, 0x05)
_CONFIG = (0x0E, 0x0F, 0x4D, 0x53, 0x100, 0x101, 0x103)
# The last two ask for a slower pace as a rule; without a place in throttle_statuses they are about the recipient's own queue.
_TEMP = (0x08, 0x64, 0x102, 0x14, 0x58)
# They are about the sender: another one may be registered.
ABOUT_THE_SENDER = frozenset({0x0A, 0x48, 0x49})
_TIMES = re.compile(r"TEMP(?:\(([0-9]+)\))?")
SHY = 2  # attempts that SUBMITFAIL, UNKNOWNERR and codes nobody has explained deserve


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a status asks for. `attempts` is the most that a TEMP deserves."""

    action: StatusAction
    attempts: int | None = None


def code_of(status: int) -> str:
    """As it stands in a message's history: "0x0000000B"."""
    return f"0x{status:08X}"


def name_of(status: int) -> str:
    """As the standard calls it; "vendor" in the range left to vendors, "reserved" elsewhere."""
    return NAMES.get(status) or ("vendor" if 0x400 <= status <= 0x4FF else "reserved")


def judge(profile: Profile) -> Callable[[int], Verdict]:
    """The verdict on every status for one gateway."""
    patient, shy = Verdict("TEMP", profile.temp_attempts), Verdict("TEMP", SHY)
    verdicts: dict[int, Verdict] = dict.fromkeys(_TEMP, patient)
    commonly: tuple[tuple[StatusAction, tuple[int, ...]], ...] = (("PERM", _PERM), ("BRK", _BRK), ("REBIND", _REBIND), ("CONFIG", _CONFIG))
    for action, statuses in commonly:
        verdicts |= dict.fromkeys(statuses, Verdict(action))
    verdicts |= {int(status, 16): Verdict("THROTTLE") for status in profile.throttle_statuses}
    for key, override in profile.status_overrides.items():
        if found := _TIMES.fullmatch(override):
            verdicts[int(key, 16)] = Verdict("TEMP", int(found[1])) if found[1] else patient
        else:
            verdicts[int(key, 16)] = Verdict(cast("StatusAction", override))
    return lambda status: verdicts.get(status, shy)
