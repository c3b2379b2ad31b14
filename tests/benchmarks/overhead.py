"""What the agent costs ordinary work: throughput, CPU and p99 of one service, watched in four ways.

``bare`` is the service alone; ``opentelemetry`` is OpenTelemetry's own auto-instrumentation at the same
sampling; ``attached`` is our agent; ``attached, run live`` the same while a run is live and writes are
claimed. All four run side by side and are asked in turn, again and again, in one session: the figures are
medians of the ratios of neighbours. CPU is the service's own, by the operating system's account.
``make bench-overhead``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg

from perflab.cli.attach import attached_environment
from perflab.config import Secret, Store, Target
from perflab.demo.scratch import scratch_directory
from perflab.demo.spawn import free_port
from perflab.demo.stores import PostgresServer
from perflab.shadow.control import ControlPublisher, LiveRun
from perflab.shadow.mark import new_tag

HERE = Path(__file__).parent
KEPT = HERE.parents[1] / "perflab/report/overhead.json"
SCHEMA = """
CREATE TABLE orders (id serial PRIMARY KEY, note text);
CREATE TABLE line (id serial PRIMARY KEY, order_id int, amount int);
CREATE INDEX ON line (order_id);
INSERT INTO orders (note) SELECT 'order ' || n FROM generate_series(1, 50) n;
INSERT INTO line (order_id, amount) SELECT n % 50 + 1, n FROM generate_series(1, 200) n;
"""
OPENTELEMETRY = (
    "opentelemetry-distro==0.66b1", "opentelemetry-exporter-otlp-proto-http==1.45.1",
    "opentelemetry-instrumentation-flask==0.66b1", "opentelemetry-instrumentation-psycopg==0.66b1",
)  # fmt: skip
SAMPLE_RATIO = Target.__struct_defaults__[
    Target.__struct_fields__.index("sample_ratio") - len(Target.__struct_fields__)
]


def measure(rounds: int, requests: int, *, with_opentelemetry: bool = True) -> dict[str, dict[str, float]]:
    """Measure and return the medians of ratios to ``bare``: variant -> ``throughput``, ``cpu``, ``p99``.

    Parameters
    ----------
    rounds : int
        How often each variant is asked.
    requests : int
        Per round and variant.
    with_opentelemetry : bool
        Whether OpenTelemetry's own instrumentation is installed, into a folder of its own, and measured.
    """
    with ExitStack() as stack:
        directory = stack.enter_context(scratch_directory()).path
        server = stack.enter_context(PostgresServer(directory / "postgres"))
        url = _database(server)
        collector = stack.enter_context(_collector())
        variants = {
            "bare": dict(os.environ),
            "attached": attached_environment(_target(directory / "idle", server, collector), "shop"),
        }
        live = _target(directory / "live", server, collector)
        variants["attached, run live"] = attached_environment(live, "shop")
        if with_opentelemetry:
            variants["opentelemetry"] = _opentelemetry(directory / "opentelemetry", collector)
        publisher = stack.enter_context(ControlPublisher(Path(live.control), b"key"))
        publisher.add(LiveRun(new_tag(), "bench", "bench", int(time.time()) + 3600))
        services = {
            name: stack.enter_context(_service(url, environment)) for name, environment in variants.items()
        }
        for service in services.values():
            _ask(service, requests)
        measured = [
            {name: _ask(services[name], requests) for name in _order(list(services), number)}
            for number in range(rounds)
        ]
    return {
        name: {
            figure: statistics.median(turn[name][figure] / turn[against][figure] for turn in measured)
            for figure in ("per_s", "cpu_ms", "p99_ms")
        }
        for name, against in _pairs(list(services))
    }


def _pairs(names: list[str]) -> list[tuple[str, str]]:
    return [(name, "bare") for name in names if name != "bare"]


def _order(names: list[str], number: int) -> list[str]:
    """Return the order of a round: each variant comes first in turn."""
    turn = number % len(names)
    return names[turn:] + names[:turn]


def _ask(service: dict[str, Any], requests: int) -> dict[str, float]:
    before_s = _cpu_s(service["pid"])
    done = subprocess.run(
        [sys.executable, HERE / "overhead_client.py", str(service["port"]), str(requests)],
        stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    told = json.loads(done.stdout)
    return {**told, "cpu_ms": (_cpu_s(service["pid"]) - before_s) * 1e3 / told["requests"]}


def _cpu_s(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _service(url: str, environment: dict[str, str]) -> Iterator[dict[str, Any]]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, HERE / "overhead_app.py", str(port), url], env=environment, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 60
        while True:
            try:
                import socket

                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError("the service does not come up") from None
                time.sleep(0.1)
        yield {"port": port, "pid": process.pid}
    finally:
        process.terminate()
        process.wait(20)


def _database(server: PostgresServer) -> str:
    with psycopg.connect(server.admin_dsn, autocommit=True) as session:
        session.execute("CREATE ROLE app LOGIN PASSWORD 'secret'")
        session.execute("CREATE DATABASE shop OWNER app")
        session.execute("CREATE DATABASE shadow")
    url = server.dsn("shop", "app", "secret")
    with psycopg.connect(url) as session:
        session.execute(SCHEMA)
    return url


def _target(directory: Path, server: PostgresServer, collector: str) -> Target:
    directory.mkdir()
    (directory / "key").write_text("key")
    (directory / "shadow").write_text(server.dsn("shadow", "role", "secret"))
    return Target(
        addresses=("127.0.0.1:9",),
        control=str(directory / "control.json"),
        control_key=Secret(file=str(directory / "key")),
        collector=collector,
        stores=(
            Store(
                "shop",
                "postgresql",
                f"postgresql://127.0.0.1:{server.port}/shop",
                Secret(file=str(directory / "shadow")),
            ),
        ),
    )


def _opentelemetry(folder: Path, collector: str) -> dict[str, str]:
    """Install OpenTelemetry's auto-instrumentation into a folder; return the environment that starts it."""
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", folder,
         *OPENTELEMETRY],
        check=True,
    )  # fmt: skip
    path = [folder / "opentelemetry/instrumentation/auto_instrumentation", folder]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": str(SAMPLE_RATIO),
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector}",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
    }


@contextmanager
def _collector() -> Iterator[str]:
    """Take spans and reports, and answer."""

    class Taker(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *arguments: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Taker) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def report(ratios: dict[str, dict[str, float]], rounds: int, requests: int) -> str:
    """Write the table."""
    lines = [
        f"ratios to the bare service, medians of {rounds} rounds of {requests} requests each, in turn;",
        f"sampling of ordinary requests {SAMPLE_RATIO:g}",
        f"{'':24}{'throughput':>12}{'CPU':>12}{'p99':>12}",
    ]
    for name, figures in ratios.items():
        lines.append(
            f"{name:24}{figures['per_s']:>12.3f}{figures['cpu_ms']:>12.3f}{figures['p99_ms']:>12.3f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--write", action="store_true", help="keep the figures for the reports")
    chosen = parser.parse_args()
    ratios = measure(chosen.rounds, chosen.requests)
    print(report(ratios, chosen.rounds, chosen.requests))
    if chosen.write:
        kept = {
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "rounds": chosen.rounds,
            "requests": chosen.requests,
            "sample_ratio": SAMPLE_RATIO,
            "ratios": ratios,
        }
        KEPT.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
