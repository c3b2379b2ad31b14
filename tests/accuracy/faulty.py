"""A service of the demo's shop with faults that can be switched on: ``python faulty.py SERVICE PORT FAULTS``.

The service is the shop's own module, served by its own server. Before a handler runs, what the file FAULTS
says of it is done: burn the processor, sleep, wait for a lock, hold a pooled connection, run statements,
write or read large values. In front of it stands a program of its own that passes every connection on, late
if the file says so: the network. An empty file is a shop without a fault.
"""

from __future__ import annotations

import functools
import importlib
import json
import runpy
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FREE_PORT = 0
_LOCK = threading.Lock()


class Faults:
    """What the file says, read again whenever it was replaced."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_ns = 0
        self._found: dict[str, dict[str, Any]] = {}

    def of(self, name: str) -> dict[str, Any]:
        changed_ns = self._path.stat().st_mtime_ns
        if changed_ns != self._read_ns:
            self._found, self._read_ns = json.loads(self._path.read_text()), changed_ns
        return self._found.get(name, {})


def do(fault: dict[str, Any], module: Any) -> None:
    """Do what a fault says, as a service that has it would."""
    ms = fault.get("ms", 0) / 1000
    kind = fault["kind"]
    if kind == "cpu":
        until = time.thread_time() + ms
        while time.thread_time() < until:
            sum(range(500))
    elif kind == "sleep":
        time.sleep(ms)
    elif kind == "lock":
        with _LOCK:
            time.sleep(ms)
    elif kind == "pool":
        with module.database.connection():
            time.sleep(ms)
    elif kind == "statements":
        run = run_statement(module)
        for _ in range(fault["times"]):
            run(fault["statement"])
    elif kind == "get":
        module.cache.get(fault["key"])
    elif kind == "hset":
        module.carts.hset(fault["key"], "large", "x" * fault["bytes"])


def run_statement(module: Any) -> Callable[[str], Any]:
    """Return what runs a statement as the service does."""
    if hasattr(module, "engine"):
        from sqlalchemy import text

        def by_engine(statement: str) -> None:
            with module.engine.connect() as connection:
                connection.execute(text(statement)).all()

        return by_engine

    def by_pool(statement: str) -> None:
        with module.database.connection() as connection:
            connection.execute(statement).fetchall()

    return by_pool


def wrap(handler: Any, name: str, faults: Faults, module: Any) -> Any:
    """Return a handler that has the fault of its name first."""

    @functools.wraps(handler)
    def with_fault(*args: Any, **kwargs: Any) -> Any:
        if fault := faults.of(name):
            do(fault, module)
        return handler(*args, **kwargs)

    return with_fault


def plant(module: Any, service: str, faults: Faults) -> None:
    """Wrap the handlers of a Flask or FastAPI application; coroutines are left alone."""
    if hasattr(module.app, "view_functions"):
        for name, handler in module.app.view_functions.items():
            module.app.view_functions[name] = wrap(handler, f"{service}.{name}", faults, module)
        return
    for route in module.app.routes:
        dependant = getattr(route, "dependant", None)
        if dependant is not None and dependant.call.__name__ != "charge":
            name = f"{service}.{dependant.call.__name__}"
            dependant.call = wrap(dependant.call, name, faults, module)


def serve(service: str, port: int, path: Path) -> None:
    """Serve on a port of its own, with the network in front."""
    module = importlib.import_module(f"perflab.demo.shop.{service}")
    faults = Faults(path)
    if service == "bank":
        slow_down(module, faults)
    else:
        plant(module, service, faults)
    if service in ("catalogue", "payment"):
        module.database.resize(1, 1)  # a pool too small, which does no harm until a connection is held
    from perflab.demo.spawn import free_port

    inner = free_port()
    network = [
        sys.executable,
        str(Path(__file__).with_name("network.py")),
        str(port),
        str(inner),
        service,
        str(path),
    ]
    subprocess.Popen(network, stdin=subprocess.PIPE)  # it ends with us
    if service in ("cart", "stock", "order"):
        sys.argv = [
            "waitress",
            f"--listen=127.0.0.1:{inner}",
            "--threads=8",
            f"perflab.demo.shop.{service}:app",
        ]
        runpy.run_module("waitress", run_name="__main__")
        return
    import uvicorn

    uvicorn.run(module.app, host="127.0.0.1", port=inner, log_level="warning", access_log=False)


def slow_down(module: Any, faults: Faults) -> None:
    """Let the bank sleep as long as the file says, its own time aside."""
    import asyncio

    for route in module.app.routes:
        dependant = getattr(route, "dependant", None)
        if dependant is not None and dependant.call.__name__ == "charge":
            charge = dependant.call

            @functools.wraps(charge)
            async def late(*args: Any, charge: Any = charge, **kwargs: Any) -> Any:
                await asyncio.sleep(faults.of("bank.charge").get("ms", 0) / 1000)
                return await charge(*args, **kwargs)

            dependant.call = late


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
