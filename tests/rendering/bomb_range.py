"""Where bombs are thrown: a process of its own that reads sources, a line of JSON each, and tries every one in a child with little memory and little time.

It answers `{"outcome": "refused" | "cut" | "wrote" | "memory" | "killed", "detail": ..., "grown": bytes of memory at the worst}`.
"""

import json
import os
import resource
import sys
from pathlib import Path

from app.catalogue.types import sample_of
from app.rendering import engine
from app.rendering.engine import RenderFailed, compile_part
from app.rendering.formats import style_of
from app.rendering.proof import _values, emptiness

MEMORY, SECONDS = 100 * 1024 * 1024, 1


class Never(Exception):
    """Caught nowhere."""


def size(name: str) -> int:
    """`VmSize` or `VmPeak` of this process, in bytes (proc(5))."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def tried(source: str, kind: str, values: dict) -> tuple[str, str]:
    """As adding, publishing and previewing do it: parsed, looked through for what may be empty, compiled and rendered."""
    emptiness(
        "balance.exhausting", None, "email" if kind != "sms" else "sms", type("Fields", (), {"subject": None, "text": source, "html": None, "mjml": None})
    )
    part = compile_part(source, kind)
    if isinstance(part, list):
        return "refused", part[0].detail
    try:
        written = part.render(values, style_of("ru", sms=kind == "sms"))
    except RenderFailed as failed:
        return ("memory" if isinstance(failed.__context__, MemoryError) else "cut"), failed.detail
    return "wrote", str(len(written))


def thrown(source: str, kind: str, values: dict) -> dict:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        before = size("VmSize")
        resource.setrlimit(resource.RLIMIT_AS, (before + MEMORY, before + MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        engine.MemoryError = Never  # so that the parser's answer to too little memory does not hide that there was too little
        try:
            outcome, detail = tried(source, kind, values)
        except MemoryError:
            outcome, detail = "memory", ""
        os.write(writing, json.dumps({"outcome": outcome, "detail": detail, "grown": size("VmPeak") - before}).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return json.loads(said) if said else {"outcome": "killed", "detail": "", "grown": 0}


def main() -> None:
    values = _values("balance.exhausting", sample_of("balance.exhausting"))
    style_of("ru", sms=True).money(values["shortfall"], "RUB")
    for line in sys.stdin:
        source, kind = json.loads(line)
        sys.stdout.write(json.dumps(thrown(source, kind, values)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
