"""What the processes of a stack cost, read from /proc (Linux): CPU by what each is, and peak memory."""

import os
from collections import defaultdict
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""


def stat(pid: int) -> list[str]:
    return read(pid, "stat").rpartition(")")[2].split()


def descendants(root: int, data_dir: str) -> list[int]:
    """The root, its children and theirs, and the servers that work in its data folder."""
    parents = {int(entry): int(fields[1]) for entry in os.listdir("/proc") if entry.isdigit() and (fields := stat(int(entry)))}
    mine = {root} | {pid for pid in parents if data_dir in read(pid, "cmdline")}
    while more := {pid for pid, parent in parents.items() if parent in mine} - mine:
        mine |= more
    return sorted(mine)


def kind_of(pid: int) -> str:
    """By its command line: a queue, the API, PostgreSQL, Redis, a far end."""
    words = read(pid, "cmdline")
    if words.startswith("postgres") or "/postgres" in words:
        return "postgres"
    if "redis-server" in words:
        return "redis"
    for word, kind in (("smsc-simulator", "far end"), ("mailbox", "far end"), ("smpp:", "deliver"), ("mail", "mail"), ("plan", "plan"), (" serve", "api")):
        if word in words:
            return kind
    return "up"


def cpu_by_kind(pids: list[int]) -> dict[str, float]:
    """User and system seconds so far."""
    spent: dict[str, float] = defaultdict(float)
    for pid in pids:
        if fields := stat(pid):
            spent[kind_of(pid)] += sum(int(value) for value in fields[11:13]) / TICK
    return dict(spent)


def memory_by_kind(pids: list[int]) -> dict[str, float]:
    """Proportional set size in MiB."""
    used: dict[str, float] = defaultdict(float)
    for pid in pids:
        for line in read(pid, "smaps_rollup").splitlines():
            if line.startswith("Pss:"):
                used[kind_of(pid)] += int(line.split()[1]) / 1024
    return dict(used)
