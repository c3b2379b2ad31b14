"""Ask a service as four users do, each waiting for its answer: python overhead_client.py PORT REQUESTS."""

from __future__ import annotations

import asyncio
import json
import sys
import time

USERS = 4
GET = b"GET /orders/%d HTTP/1.1\r\nHost: x\r\n\r\n"
BODY = json.dumps({"note": "a note of some length, as people write them"}).encode()
POST = (
    b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    % len(BODY)
) + BODY


async def use(port: int, requests: int, latencies_ns: list[int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number in range(requests):
        began_ns = time.perf_counter_ns()
        writer.write(POST if number % 4 == 3 else GET % (1 + number % 50))
        head = await reader.readuntil(b"\r\n\r\n")
        if head[9:12] not in (b"200", b"201"):
            raise SystemExit(f"the service answered {head[:60]!r}")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        await reader.readexactly(length)
        latencies_ns.append(time.perf_counter_ns() - began_ns)
    writer.close()


async def main(port: int, requests: int) -> None:
    latencies_ns: list[int] = []
    began = time.perf_counter()
    await asyncio.gather(*(use(port, requests // USERS, latencies_ns) for _ in range(USERS)))
    elapsed_s = time.perf_counter() - began
    latencies_ns.sort()
    p99_ms = latencies_ns[int(0.99 * len(latencies_ns))] / 1e6
    print(
        json.dumps({"per_s": len(latencies_ns) / elapsed_s, "p99_ms": p99_ms, "requests": len(latencies_ns)})
    )


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
