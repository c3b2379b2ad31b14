"""The mark passes a service in another language: Node, with OpenTelemetry's own instrumentation from npm."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from attached_stage import Stage, stage_in, trace_id, until

HOP = Path(__file__).parent / "node_hop"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, needs: Callable[[object, str], None]) -> Path:
    """Install the service's packages into a folder of its own."""
    needs(shutil.which("node") and shutil.which("npm"), "node and npm")
    folder = tmp_path_factory.mktemp("node_hop")
    shutil.copytree(HOP, folder, dirs_exist_ok=True)
    npm = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(npm, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage_in(tmp_path_factory.mktemp("stage")) as opened:
        yield opened


@contextmanager
def node_hop(folder: Path, sampler: str) -> Iterator[str]:
    """Run the Node service and yield its address."""
    process = subprocess.Popen(
        ["node", "hop.js"],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "OTEL_TRACES_SAMPLER": sampler},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.wait(20)
        process.stdout.close()


@pytest.mark.parametrize("sampler", ["always_on", "always_off"])
def test_the_mark_survives_a_hop_through_node(installed: Path, stage: Stage, sampler: str):
    """Python to Node to Python: marked on both ends, and the call from Node is a span of Node's own."""
    with node_hop(installed, sampler) as node:
        # Given two attached services with one between them that knows nothing of perflab
        front = stage.serve("flask_shop:app", service="front", target={"services": {"node": (node,)}})
        back = stage.serve("flask_shop:app", service=f"back {sampler}")
        through = f"http://{node}/hop?url=" + quote(f"http://127.0.0.1:{back.port}/items/7")
        # When a marked request goes through all three, twice, and a real user's
        marked = [stage.marked(), stage.marked()]
        for headers in (*marked, {}):
            answer = front.call("requests", through, headers)
            assert answer["status"] == 200, answer
            assert '"number":7' in answer["body"][0].replace(" ", "")
        # Then the last one worked on the marked ones as marked, below a span that is neither's
        for headers in marked:
            trace = trace_id(headers)
            called = stage.receiver.span(trace, "client")
            spans = stage.receiver.spans
            stage.receiver.span(trace, "server", "GET /items/{number}")
            (served,) = [
                row
                for row in spans(trace).to_dict("records")
                if row["kind"] == "server" and row["service"].startswith("back")
            ]
            assert served["shadow"]
            assert served["parent_span_id"] not in (0, called["span_id"])
        fleet, name = stage.receiver.fleet, f"back {sampler}"
        until(lambda: fleet.marks().get(name, {}).get("marked") == 2, f"two marks in the reports of {name}")
        back.stop()
        assert fleet.marks()[name] == {"marked": 2}
