"""A stage for attached services: a controller's list and collector, services in processes, peers that echo.

Hooks patch the libraries of their process, so nothing here hooks the tests' own.
"""

from __future__ import annotations

import asyncio
import http.client
import http.server
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

import pandas as pd

from perflab.cli.attach import attached_environment
from perflab.config import Secret, Target
from perflab.shadow.control import ControlPublisher, LiveRun
from perflab.shadow.fleet import Fleet
from perflab.shadow.mark import RunKey, mint
from perflab.trace.collector import Collector

SERVICES = Path(__file__).parent / "services"
KEY = b"a control key of the tests only!"
PATIENCE_S = 20.0
# What a script needs to do marked work without a request: marked(token, function) runs it.
SCRIPT = """
import contextvars, sys
def marked(token, function, *arguments):
    from perflab.shadow import scope
    def run():
        scope.enter(scope.Shadow(int(token[2:6], 16), token, 1))
        return function(*arguments)
    return contextvars.copy_context().run(run)
"""


def until(condition: Callable[[], Any], what: str = "what the test waits for") -> Any:
    """Return the first truthy answer of a condition, asked again and again until the patience ends."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen in {PATIENCE_S:g} s")
        time.sleep(0.02)


class Echo:
    """A peer that answers with, and remembers, the headers it was sent."""

    def __init__(self) -> None:
        self.received: list[dict[str, str]] = []
        echo = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                echo.received.append({":path": self.path, **headers})
                self.answer()

            def answer(self) -> None:
                split = urlsplit(self.path)
                status = 200
                if split.path.startswith("/status/"):
                    status = int(split.path[8:])
                if split.path == "/slow":
                    time.sleep(1.2)
                body = json.dumps(echo.received[-1]).encode()
                self.send_response(302 if split.path == "/to" else status)
                if split.path == "/to":
                    self.send_header("Location", split.query)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"http://{self.address}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def last(self) -> dict[str, str]:
        """What came last."""
        return self.received[-1]


class Receiver:
    """A real collector with a fleet, on an event loop in a thread of its own."""

    def __init__(self) -> None:
        self.fleet = Fleet()
        self.collector = Collector("127.0.0.1:0", {"/v1/agents": self.fleet.receive})
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.collector.start(), self._loop).result(10)
        return self

    def __exit__(self, *exc_info: object) -> None:
        asyncio.run_coroutine_threadsafe(self.collector.close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def spans(self, trace_id: str = "") -> pd.DataFrame:
        """Return the spans received so far, of one trace or all."""
        table = self.collector.spans()
        return table[table.trace_id == trace_id] if trace_id else table

    def span(self, trace_id: str, kind: str = "server", name: str = "") -> dict[str, Any]:
        """Wait for one span of a trace and return its row, attributes decoded."""

        def found() -> dict[str, Any] | None:
            rows = self.spans(trace_id)
            rows = rows[rows.kind == kind]
            rows = rows[rows.name == name] if name else rows
            return dict(rows.iloc[0]) if len(rows) else None

        row = until(found, f"a {kind} span {name!r} of trace {trace_id}")
        row["attributes"] = json.loads(row["attributes"] or "{}")
        return row


class Service:
    """A service in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log
        self._parents: set[str] = set()

    def get(self, path: str, headers: dict[str, str] | None = None, method: str = "GET") -> tuple[int, Any]:
        """Send a request, as a call of its own; return the status, and the body decoded where it is JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, headers=self._as_new(headers or {}))
            answer = connection.getresponse()
            body = answer.read()
            is_json = answer.getheader("content-type", "").startswith("application/json")
            return answer.status, json.loads(body) if is_json else body
        finally:
            connection.close()

    def _as_new(self, headers: dict[str, str]) -> dict[str, str]:
        """Return headers with a parent span of their own where that was sent before: a copy is a replay."""
        parent = headers.get("traceparent", "")
        if parent in self._parents:
            version, trace, _, flags = parent.split("-")
            return {**headers, "traceparent": f"{version}-{trace}-{secrets.randbits(63) + 1:016x}-{flags}"}
        self._parents |= {parent} - {""}
        return headers

    def call(self, client: str, url: str, headers: dict[str, str] | None = None, **more: str) -> Any:
        """Have the service call a peer; return what it says of it."""
        query = "&".join(f"{name}={quote(value)}" for name, value in {"client": client, **more}.items())
        return self.get(f"/call?{query}&url={quote(url)}", headers)[1]

    def raw(self, request: bytes) -> bytes:
        """Send bytes and return all that comes back, but for the line that tells the time."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S) as connection:
            connection.sendall(request)
            parts = []
            while part := connection.recv(65536):
                parts.append(part)
        head, blank, body = b"".join(parts).partition(b"\r\n\r\n")
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"date:")]
        return b"\r\n".join(lines) + blank + body

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(20)


class Stage:
    """Everything an attached service needs around it; all of it ends with the stage."""

    def __init__(self, directory: Path, accepted: tuple[str, ...] = ()) -> None:
        self.directory = directory
        self._stack = ExitStack()
        self._accepted = accepted
        self._numbers = iter(range(1_000))

    def __enter__(self) -> Self:
        (self.directory / "control.key").write_bytes(KEY)
        self.control = self.directory / "control.json"
        self.publisher = self._stack.enter_context(ControlPublisher(self.control, KEY))
        self.run_key = self.live()
        self.receiver = self._stack.enter_context(Receiver())
        self.echo = self._stack.enter_context(Echo())
        self.outside = self._stack.enter_context(Echo())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def live(self, accepted: tuple[str, ...] | None = None) -> RunKey:
        """List one more run as live."""
        tag = secrets.randbelow(0xFFFE) + 1
        accepted = self._accepted if accepted is None else accepted
        return self.publisher.add(LiveRun(tag, f"run-{tag}", "key", int(time.time()) + 600, False, accepted))

    def marked(self, run_key: RunKey | None = None) -> dict[str, str]:
        """Return the headers of a new marked request."""
        return mint(run_key or self.run_key, secrets.randbits(64)).headers(secrets.randbits(63) + 1)

    def target(self, **more: Any) -> Target:
        """Return a target with the stage's peers; ``more`` overrides."""
        given: dict[str, Any] = {
            "addresses": ("127.0.0.1:1",),
            "control": str(self.control),
            "control_key": Secret(file=str(self.directory / "control.key")),
            "collector": self.receiver.collector.address,
            "sample_ratio": 1.0,
            "services": {"echo": (self.echo.address,)},
        }
        return Target(**(given | more))

    def environment(self, attached: bool = True, **more: Any) -> dict[str, str]:
        """Return the environment of a service; ``more`` goes to attach, but for ``target``'s overrides."""
        target = self.target(**more.pop("target", {}))
        environment = dict(os.environ)
        if attached:
            environment = attached_environment(target, more.pop("service", "shop"), **more)
        environment["PYTHONHASHSEED"] = "0"  # frameworks print sets
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, [environment.get("PYTHONPATH", ""), str(SERVICES)])
        )
        return environment

    def serve(self, where: str, environment: dict[str, str] | None = None, **more: Any) -> Service:
        """Start a service and wait until it says its port."""
        server = "uvicorn" if "fastapi" in where or where.endswith("asgi") else "waitress"
        serving = ["prefork.py", where] if more.pop("prefork", False) else ["serve.py", server, where]
        log = self.directory / f"service{next(self._numbers)}.log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, str(SERVICES / serving[0]), *serving[1:]],
                env=environment or self.environment(**more),
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self._stack.callback(self._end, process)
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the service did not start: {log.read_text()}")
        return Service(process, int(line), log)

    def script(
        self, code: str, *arguments: str, environment: dict[str, str] | None = None, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a script in an attached process of its own."""
        return subprocess.run(
            [sys.executable, "-c", SCRIPT + code, *arguments],
            env=environment or self.environment(**more),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def interactive(
        self, code: str, *arguments: str, environment: dict[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a script in an attached process, to be talked to through its pipes."""
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT + code, *arguments],
            env=environment or self.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._stack.callback(self._end, process)
        return process

    @staticmethod
    def _end(process: subprocess.Popen[Any]) -> None:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


@contextmanager
def stage_in(directory: Path, accepted: tuple[str, ...] = ()) -> Iterator[Stage]:
    """Open a stage in a directory."""
    with Stage(directory, accepted) as stage:
        yield stage


def trace_id(headers: dict[str, str]) -> str:
    """Return the trace-id of a request's headers."""
    return headers["traceparent"].split("-")[1]
