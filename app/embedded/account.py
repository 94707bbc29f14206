"""The OS user that PostgreSQL runs as: it refuses to run as root."""

import ctypes
import os
import pwd
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.embedded.process import ServerError

# In order of preference: made for this very purpose; made for PostgreSQL; there on every system.
CANDIDATES = ("vestnik", "pgserver", "postgres", "nobody")

# linux/prctl.h, linux/securebits.h and linux/capability.h.
PR_SET_SECUREBITS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 28, 47, 2
SECBIT_NO_SETUID_FIXUP = 1 << 2
CAP_DAC_OVERRIDE = 1
CAPABILITY_VERSION_3 = 0x20080522


@dataclass(frozen=True, slots=True)
class Account:
    uid: int
    gid: int
    name: str


def server_account(data: Path) -> Account | None:
    """Who shall run the server: the owner of data that is already there, else the first candidate; None unless we are root."""
    if os.geteuid() != 0:
        return None
    try:
        if data.exists() and (owner := data.stat().st_uid) != 0:
            return _account(pwd.getpwuid(owner))
    except KeyError:
        raise ServerError(f"{data} belongs to user id {owner}, who has no account here: choose another VESTNIK_DATA_DIR") from None
    for name in CANDIDATES:
        try:
            return _account(pwd.getpwnam(name))
        except KeyError:
            continue
    raise ServerError("PostgreSQL refuses to run as root and there is no user 'nobody': run this as an ordinary user, or set VESTNIK_DATABASE_URL")


def _account(entry: pwd.struct_passwd) -> Account:
    return Account(entry.pw_uid, entry.pw_gid, entry.pw_name)


def becoming(account: Account | None, *paths: Path) -> Callable[[], None] | None:
    """What a child process does before exec to run as `account`, still able to reach `paths`.

    A checkout under /root or a data directory under somebody's 0700 home is closed to every other user. We do not open it:
    the child keeps one of root's capabilities, CAP_DAC_OVERRIDE, and only where it needs it.
    """
    if account is None:
        return None
    target = account
    closed = not all(_is_open(path) for path in paths)
    libc = ctypes.CDLL(None, use_errno=True)

    def become() -> None:
        os.setgroups([])
        os.setgid(target.gid)
        if closed:
            # The kernel neither drops capabilities at setuid nor leaves them out of access(2), by which initdb looks for its files.
            libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
        os.setuid(target.uid)
        if closed:
            _keep_one_capability(libc)

    return become


def _is_open(path: Path) -> bool:
    """Whether any user may pass through every directory above `path`."""
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in path.resolve().parents if parent.exists())


def _keep_one_capability(libc: ctypes.CDLL) -> None:
    # capset(2): {version, pid 0 = this thread}, then two triples {effective, permitted, inheritable} of 32 bits.
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    wanted = 1 << CAP_DAC_OVERRIDE
    sets = (ctypes.c_uint32 * 6)(wanted, wanted, wanted, 0, 0, 0)
    if libc.capset(header, sets) or libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0):
        raise PermissionError("CAP_DAC_OVERRIDE is withheld")
