"""Passes connections on to a service, late: ``python network.py PORT INNER SERVICE FAULTS``.

What a caller sends waits as long as the file FAULTS says of ``network.SERVICE``; answers are passed on at
once. It ends with its parent.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from faulty import Faults


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, late_ms: object) -> None:
    try:
        while data := await reader.read(65536):
            if callable(late_ms) and (ms := late_ms()):
                await asyncio.sleep(ms / 1000)
            writer.write(data)
            await writer.drain()
    except (ConnectionError, asyncio.CancelledError):
        pass
    finally:
        writer.close()


async def serve(port: int, inner: int, service: str, faults: Faults) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", inner)
        except ConnectionError:
            writer.close()
            return
        late = lambda: faults.of(f"network.{service}").get("ms", 0)  # noqa: E731
        await asyncio.gather(pass_on(reader, back, late), pass_on(there, writer, None))

    server = await asyncio.start_server(connected, "127.0.0.1", port)
    async with server:
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)  # until the parent ends


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Faults(Path(sys.argv[4]))))
