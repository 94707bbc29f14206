"""Posts prepared events as fast as the service takes them, in a process of its own. One JSON object in on stdin, one out on stdout.

In: port, key, connections, batch (0: one event a request), numbers, source, rate (0: as fast as it goes). Out: first, last (Unix times), bad.
"""

import asyncio
import json
import sys
import time
from datetime import UTC, datetime
from typing import Any


def requests(spec: dict[str, Any]) -> list[bytes]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    common = {"specversion": "1.0", "source": spec["source"], "type": "payment.received", "time": now, "data": {"amount": "500.00", "method": "card"}}
    events = [common | {"id": f"e{n}", "subject": number} for n, number in enumerate(spec["numbers"])]
    size = spec["batch"] or 1
    kind = "application/cloudevents-batch+json" if spec["batch"] else "application/cloudevents+json"
    made = []
    for at in range(0, len(events), size):
        body = json.dumps(events[at : at + size] if spec["batch"] else events[at]).encode()
        head = (
            f"POST /api/v1/events HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {spec['key']}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        made.append(head.encode() + body)
    return made


async def post(port: int, queue: list[bytes], bad: list[str], pace: float, began: float, done: list[int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while queue:
        if pace and (early := began + done[0] * pace - time.monotonic()) > 0:
            await asyncio.sleep(early)
            if not queue:
                break
        done[0] += 1
        writer.write(queue.pop())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        body = await reader.readexactly(int(head.partition("content-length:")[2].split()[0]))
        if " 202" not in head.partition("\r\n")[0] or b'"rejected":[{' in body:
            bad.append(f"{head.partition(chr(13))[0]} {body[:200]!r}")
    writer.close()


async def main() -> None:
    spec = json.load(sys.stdin)
    queue, bad, done = requests(spec)[::-1], [], [0]
    pace = 1 / spec["rate"] if spec.get("rate") else 0.0
    first, began = time.time(), time.monotonic()
    await asyncio.gather(*(post(spec["port"], queue, bad, pace, began, done) for _ in range(spec["connections"])))
    print(json.dumps({"first": first, "last": time.time(), "bad": bad[:3]}))


if __name__ == "__main__":
    asyncio.run(main())
