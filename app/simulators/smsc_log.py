"""What happened at the simulated SMSC, one line each: for assertions in a test, and for the books that a soak closes at its end."""

import json
import time
from pathlib import Path
from typing import Any, TextIO

Line = dict[str, Any]


class Log:
    """Lines in memory (`keep`), in a file (`path`), or nowhere. Kinds: bind, lost, submit, receipt, ack, time."""

    def __init__(self, *, keep: bool, path: Path | None = None) -> None:
        self.lines: list[Line] = []
        self._keep = keep
        self._flushed = 0.0
        self._file: TextIO | None = path.open("w", encoding="utf-8", buffering=1 << 16) if path is not None else None

    @property
    def is_on(self) -> bool:
        return self._keep or self._file is not None

    def note(self, kind: str, **facts: Any) -> None:
        if not self.is_on:
            return
        line = {"at": round(time.time(), 3), "kind": kind, **facts}
        if self._keep:
            self.lines.append(line)
        if self._file is not None:
            self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
            if line["at"] - self._flushed > 1:
                self._file.flush()
                self._flushed = line["at"]

    def of(self, kind: str) -> list[Line]:
        return [line for line in self.lines if line["kind"] == kind]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
