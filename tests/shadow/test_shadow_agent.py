"""The agent in a service's process: it reports, traces and forks, and never stands in the service's way."""

from __future__ import annotations

import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from attached_stage import SERVICES, Stage, stage_in, trace_id, until

import perflab
from perflab.shadow.agentconfig import VARIABLE


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage_in(tmp_path_factory.mktemp("stage")) as opened:
        yield opened


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


WORK = """
import time
from opentelemetry.trace import SpanKind
from perflab.shadow.scope import begin, finish
for _ in range(int(sys.argv[1])):
    finish(begin("work", SpanKind.INTERNAL, {}))
"""


def test_a_process_reports_what_it_is_and_believes(stage: Stage):
    """Within a second the controller knows service, hooks, versions and the runs that are believed."""
    service = stage.serve("flask_shop:app", service="told")
    fleet = stage.receiver.fleet
    until(lambda: "told" in fleet.believing(stage.run_key.tag), "the run being believed")
    # the first reports may come from before the service has imported all it hooks
    hooked = {"flask", "requests", "httpx", "sockets", "threads"}
    until(lambda: hooked <= set(fleet.versions()["told"]), "the hooks being told")
    versions = fleet.versions()["told"]
    assert versions["perflab"] == perflab.__version__
    assert versions["sockets"].startswith("python 3.")
    assert fleet.holes() == set()
    until(lambda: fleet.lost(["told"]) == [], "a report that is not old")
    # and what it counted is added up
    service.get("/items/1", stage.marked())
    service.get("/items/1", {"tracestate": "perflab=forged"})
    until(lambda: fleet.marks()["told"] == {"marked": 1, "refused: malformed": 1}, "the counts")


def test_without_a_collector_a_service_starts_serves_and_stops_and_says_nothing(stage: Stage):
    """Nobody listens: no delay at the start, none while serving, little at the end, not a line of log."""
    # Given a service whose collector is not there
    service = stage.serve("fastapi_shop:app", target={"collector": f"127.0.0.1:{free_port()}"})
    # When it serves users and marked requests, all of them traced
    for _ in range(20):
        assert service.get("/items/1")[0] == 200
        assert service.get("/items/1", stage.marked())[0] == 200
    # Then it ends when asked, with nothing said
    asked_s = time.monotonic()
    service.stop()
    assert time.monotonic() - asked_s < 3
    assert service.process.returncode in (0, -signal.SIGTERM)
    assert service.log.read_bytes() == b""


def test_a_collector_that_never_answers_holds_a_service_up_for_seconds_at_most(stage: Stage):
    """Connections are taken and never answered, thousands of spans unsent: the end comes all the same."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = stage.environment(target={"collector": f"127.0.0.1:{silent.getsockname()[1]}"})
        began_s = time.monotonic()
        said = stage.script(WORK, "20000", environment=environment)
        took_s = time.monotonic() - began_s
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")
    assert took_s < 12


def test_what_is_traced_last_is_delivered(stage: Stage):
    """A process that ends at once has its spans and its report delivered before."""
    said = stage.script(WORK, "3000", environment=stage.environment(service="brief"))
    assert said.stderr == ""
    spans = stage.receiver.spans()
    assert len(spans[spans.service == "brief"]) == 3000
    assert "brief" in stage.receiver.fleet.services()


def test_odd_headers_of_strangers_leave_no_line_in_the_services_log(stage: Stage):
    """OpenTelemetry's own warnings about garbage would let anyone fill the log."""
    service = stage.serve("fastapi_shop:app", service="quiet")
    odd = {
        "traceparent": "00-zz",
        "tracestate": ",".join(f"k{n}=v" for n in range(60)),
        "baggage": "no pair," + "k=" + "v" * 9000,
    }
    assert service.get("/items/1", odd)[0] == 200
    assert service.get("/items/1", {"baggage": "a b=c, =, ;x"})[0] == 200
    service.stop()
    assert service.log.read_bytes() == b""


def test_forked_workers_report_trace_and_judge(stage: Stage):
    """A prefork server's workers are processes of their own, with the holes their parent had."""
    # Given two workers forked from a parent with threads
    service = stage.serve("flask_shop:app", service="forked", prefork=True)
    # When both serve marked requests
    pids: set[int] = set()

    def both() -> bool:
        marked = stage.marked()
        pids.add(service.get("/pid", marked)[1])
        assert stage.receiver.span(trace_id(marked))["name"] == "GET /pid"
        return len(pids) == 2

    until(both, "both workers serving")
    # Then both report, refuse what is forged, and stop when asked
    assert service.get("/pid", {"tracestate": "perflab=forged"})[0] == 403
    fleet = stage.receiver.fleet
    until(lambda: fleet.marks().get("forked", {}).get("refused: malformed"), "the workers' report")
    assert pids <= {member.report.pid for member in fleet._members.values()}
    service.stop()


def test_a_hole_of_the_parent_is_a_hole_of_its_forks(stage: Stage):
    """A driver that was imported before the fork is no less uncovered after it."""
    environment = stage.environment(service="preloaded")
    environment["PYTHONPATH"] += os.pathsep + str(stage.directory)
    (stage.directory / "preloading.py").write_text("import pg8000\nfrom flask_shop import app\n")
    service = stage.serve("preloading:app", environment, prefork=True)
    status, body = service.get("/pid", stage.marked())
    assert (status, body["error"].rpartition("it: ")[2]) == (403, "preloaded: driver pg8000 is not covered")
    service.stop()


def test_a_fork_while_reporting_does_not_hang_its_child(stage: Stage):
    """Forks at any moment, while reports and exports are under way, leave children that work and end."""
    code = """
import concurrent.futures, os, time
from opentelemetry.trace import SpanKind
from perflab.shadow.scope import begin, finish
for number in range(12):
    finish(begin("parent", SpanKind.INTERNAL, {}))
    child = os.fork()
    if child == 0:
        finish(begin("child", SpanKind.INTERNAL, {}))
        concurrent.futures.ThreadPoolExecutor(1).submit(int).result()
        os._exit(0) if number % 3 else sys.exit(0)
    deadline = time.monotonic() + 10
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, 9)
            sys.exit(f"child {number} hangs")
        time.sleep(0.005)
"""
    said = stage.script(code, environment=stage.environment(service="forking"))
    assert (said.returncode, said.stderr) == (0, "")
    spans = stage.receiver.spans()
    named = spans[spans.service == "forking"].name.value_counts()
    assert (named["parent"], named["child"]) == (12, 4)


def test_the_users_own_start_up_is_run_and_their_path_kept(stage: Stage, tmp_path: Path):
    """A sitecustomize of the user's is imported as it would have been; ours is not on the path any more."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nprint('theirs', __name__, file=sys.stdout)\n")
    code = (
        "import sys, sitecustomize; print(sitecustomize.__file__, *[p for p in sys.path if 'bootstrap' in p])"
    )
    environment = stage.environment()
    environment["PYTHONPATH"] += os.pathsep + str(tmp_path)
    said = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert said.stdout.splitlines() == ["theirs sitecustomize", str(tmp_path / "sitecustomize.py")]
    assert said.stderr == ""


def test_an_agent_that_cannot_start_says_so_once_and_lets_the_service_run(stage: Stage, tmp_path: Path):
    """Whatever is wrong with the agent, the service and the user's own start-up go on."""
    (tmp_path / "sitecustomize.py").write_text("print('theirs')\n")
    environment = stage.environment()
    environment["PYTHONPATH"] += os.pathsep + str(tmp_path)
    for told in ("{", '{"service": "x"}', environment[VARIABLE].replace("control.key", "absent.key")):
        said = stage.script("print('ours')", environment=environment | {VARIABLE: told})
        assert said.stdout.splitlines() == ["theirs", "ours"]
        assert said.stderr.startswith("perflab: this process is not attached: ")
        assert said.stderr.count("\n") == 1


def test_another_python_that_a_service_starts_is_left_alone(stage: Stage):
    """A child process of a Python without perflab starts as it did, without a word."""
    python = Path(sys.base_prefix) / "bin" / "python3"
    environment = stage.environment()
    environment.pop("VIRTUAL_ENV", None)
    bare = {**environment, "PYTHONPATH": environment["PYTHONPATH"].split(os.pathsep)[0]}
    said = subprocess.run(
        [str(python), "-c", "print('ran')"],
        cwd="/",
        env=bare,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (said.stdout, said.stderr) == ("ran\n", "")


class Posts:
    """A collector that remembers what it was sent, over which connection."""

    def __init__(self) -> None:
        self.received: list[tuple[int, str, dict[str, str], bytes]] = []
        posts = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                posts.received.append((self.client_address[1], self.path, dict(self.headers), body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Posts:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def ports_of(self, word: bytes) -> set[int]:
        """Return the connections over which something with a word in it came."""
        return {port for port, _, _, body in self.received if word in body}


def test_what_the_service_was_told_of_exporters_is_not_used_for_ours(stage: Stage):
    """Neither the service's API keys nor its proxies have anything to do with perflab's collector."""
    # Given a service with settings of its own
    theirs = {
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=secret",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "api-key=secret",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "HTTP_PROXY": f"http://127.0.0.1:{free_port()}",
        "http_proxy": f"http://127.0.0.1:{free_port()}",
    }
    # When it ends
    with Posts() as posts:
        environment = stage.environment(target={"collector": posts.address})
        said = stage.script(WORK, "1", environment=environment | theirs)
    # Then its report and its span came straight, and without the keys
    assert said.stderr == ""
    assert {"/v1/agents", "/v1/traces"} <= {path for _, path, _, _ in posts.received}
    assert "secret" not in str([headers for _, _, headers, _ in posts.received])


def test_a_child_exports_over_connections_of_its_own(stage: Stage):
    """Two processes that wrote on one connection would garble each other's spans."""
    code = """
import os
from opentelemetry.trace import SpanKind
from perflab.shadow.scope import begin, finish
finish(begin("of the parent", SpanKind.INTERNAL, {}))
sys.stdin.readline()
child = os.fork()
finish(begin("of the child" if child == 0 else "of the parent", SpanKind.INTERNAL, {}))
os.waitpid(child, 0) if child else os.read(0, 1)
"""
    with Posts() as posts:
        process = stage.interactive(code, environment=stage.environment(target={"collector": posts.address}))
        until(lambda: posts.ports_of(b"of the parent"), "the parent's first span")
        process.stdin.write("fork\n")
        process.stdin.flush()
        until(lambda: posts.ports_of(b"of the child"), "the child's span")
        process.communicate(timeout=20)
    assert posts.ports_of(b"of the child")
    assert not posts.ports_of(b"of the child") & posts.ports_of(b"of the parent")


def test_a_fork_in_the_middle_of_a_report_does_not_hang_its_child(stage: Stage):
    """The lock that a report holds is not the child's, which nobody would ever release."""
    code = """
import os, time
sys.stdin.readline()
child = os.fork()
if child == 0:
    sys.exit(0)
deadline = time.monotonic() + 12
while os.waitpid(child, os.WNOHANG) == (0, 0):
    if time.monotonic() > deadline:
        os.kill(child, 9)
        sys.exit("the child hangs")
    time.sleep(0.01)
print("ended")
"""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = stage.environment(target={"collector": f"127.0.0.1:{silent.getsockname()[1]}"})
        process = stage.interactive(code, environment=environment)
        # Given a report that waits for its answer
        waiting, _ = silent.accept()
        with waiting:
            # When the process forks, then the child ends in its own time
            said, _ = process.communicate("fork\n", timeout=30)
    assert said == "ended\n"


def test_the_agent_brings_little_into_a_process(stage: Stage):
    """Nothing of the analysis, nor any library of the service's that it might not want, is imported."""
    code = "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    said = stage.script(code)
    found = set(said.stdout.split())
    assert said.stderr == ""
    heavy = {"pandas", "numpy", "pyarrow", "networkx", "plotly", "aiohttp", "papermill", "wrapt", "asyncio"}
    assert found & heavy == set()
    assert found & {"flask", "starlette", "httpx", "psycopg", "sqlalchemy", "redis", "sqlite3"} == set()
    inside = stage.script("print(*sorted(name for name in sys.modules if name.startswith('perflab.')))")
    assert not {"perflab.shadow.sql.psycopg3", "perflab.shadow.redis", "perflab.shadow.inbound"} & set(
        inside.stdout.split()
    )


def test_ordinary_traces_are_a_share_chosen_by_trace_id(stage: Stage):
    """Half of the real users' traces, the same half in every service, whatever a parent's sampling says."""
    services = [
        stage.serve("flask_shop:app", service=name, target={"sample_ratio": 0.5}) for name in ("one", "two")
    ]
    sent = [
        {"traceparent": f"00-{'ab' * 8}{n * 0x0400_0000_0000_0000:016x}-b7ad6b7169203331-0{n % 2}"}
        for n in range(64)
    ]
    for service in services:
        for headers in sent:
            service.get("/items/1", headers)
        marked = stage.marked()
        service.get("/items/1", marked)
        stage.receiver.span(trace_id(marked))
    spans = stage.receiver.spans()
    traced = [set(spans[(spans.service == name) & ~spans.shadow].trace_id) for name in ("one", "two")]
    assert traced[0] == traced[1]
    assert traced[0] == {trace_id(headers) for headers in sent[:32]}


def test_services_of_the_tests_are_no_kin_of_ours():
    """The services under test import nothing of perflab and nothing of OpenTelemetry."""
    for path in SERVICES.glob("*.py"):
        text = path.read_text()
        assert "import perflab" not in text
        assert "from perflab" not in text
        assert "opentelemetry" not in text
