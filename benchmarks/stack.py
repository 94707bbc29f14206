"""`vestnik up` on a data folder of its own, with the far ends as processes of their own: nothing is shared with the service but sockets."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from benchmarks import processes

ROOT = Path(__file__).resolve().parents[1]
VESTNIK = str(Path(sys.executable).parent / "vestnik")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Stack:
    """A running service. `api` has an admin key."""

    def __init__(self) -> None:
        self.home = tempfile.mkdtemp(prefix="vestnik-bench-")
        os.chmod(self.home, 0o755)
        self.data_dir = f"{self.home}/data"
        self.port = free_port()
        clean = {name: value for name, value in os.environ.items() if not name.startswith("VESTNIK_")}
        self.env = clean | {
            "VESTNIK_DATA_DIR": self.data_dir,
            "VESTNIK_HTTP_PORT": str(self.port),
            "VESTNIK_QUIET_HOURS": "00:00-00:00",
            "VESTNIK_LOG_LEVEL": "warning",
        }
        self._far_ends: list[subprocess.Popen[str]] = []
        self.revision = 0  # of the accounts that the imports know

    def __enter__(self) -> "Stack":
        self.log = open(f"{self.home}/up.log", "w")
        self.process = subprocess.Popen(
            [VESTNIK, "up", "--port", str(self.port), "--data-dir", self.data_dir], cwd=ROOT, env=self.env, stdout=self.log, stderr=self.log
        )
        self._wait_until_ready()
        key = self.run("key", "create", "--name", "bench", "--role", "admin").split()
        self.key = next(word for word in key if word.startswith("vst_"))
        self.api = httpx.Client(base_url=f"http://127.0.0.1:{self.port}/api/v1", headers={"Authorization": f"Bearer {self.key}"}, timeout=300)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(40)
        for far_end in self._far_ends:
            far_end.terminate()
        self.log.close()
        subprocess.run(["rm", "-rf", self.home], check=False)

    def _wait_until_ready(self) -> None:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"http://127.0.0.1:{self.port}/health/ready").status_code == 200:
                    return
            if self.process.poll() is not None:
                break
            time.sleep(0.2)
        raise SystemExit(f"the service did not start: {Path(self.log.name).read_text()[-2000:]}")

    def run(self, *words: str) -> str:
        return subprocess.run([VESTNIK, *words], cwd=ROOT, env=self.env, check=True, capture_output=True, text=True).stdout

    def far_end(self, *words: str) -> int:
        """Start a simulator; the port that it listens on."""
        process = subprocess.Popen([VESTNIK, *words, "--port", "0", "--quiet"], cwd=ROOT, env=self.env, stdout=subprocess.PIPE, text=True)
        self._far_ends.append(process)
        assert process.stdout is not None
        return int(json.loads(process.stdout.readline())["port"])

    @contextlib.contextmanager
    def gateway(self, name: str, **settings: Any) -> Iterator[str]:
        self._put(name, settings)
        try:
            yield name
        finally:
            self._put(name, settings | {"enabled": False})

    def _put(self, name: str, settings: dict[str, Any]) -> None:
        found = self.api.get(f"/gateways/{name}")
        match = {"If-Match": found.headers["etag"]} if found.status_code == 200 else {}
        self.api.put(f"/gateways/{name}", json=settings, headers=match).raise_for_status()

    def wait_bound(self, name: str) -> None:
        for _ in range(600):
            if any(bind["state"] == "bound" for bind in self.api.get(f"/gateways/{name}/status").json()["binds"]):
                return
            time.sleep(0.1)
        raise SystemExit(f"{name} did not bind")

    def accounts(self, prefix: str, count: int, channel: str) -> list[str]:
        """New accounts with one contact each."""
        numbers = [f"{prefix}-{n:07d}" for n in range(count)]
        for at in range(0, count, 20_000):
            lines = []
            for n in range(at, min(at + 20_000, count)):
                address = f"+7916{n:07d}" if channel == "sms" else f"{prefix}{n}@example.org"
                contact = {"channel": channel, "address": address}
                lines.append(
                    json.dumps(
                        {
                            "number": numbers[n],
                            "name": "Subscriber",
                            "balance": "100.00",
                            "currency": "RUB",
                            "locale": "ru",
                            "timezone": "Europe/Moscow",
                            "contacts": [contact],
                        }
                    )
                )
            answer = self.api.post("/accounts/import", content="\n".join(lines).encode(), headers={"Content-Type": "application/x-ndjson"})
            answer.raise_for_status()
            assert answer.json()["created"] == len(lines), answer.text[:300]
        return numbers

    def family(self) -> list[int]:
        return processes.descendants(self.process.pid, self.data_dir)
