"""What importing costs, counted in modules, and who may import what where import-linter cannot see it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import perflab

HEAVY = {
    "aiohttp", "asyncssh", "IPython", "jinja2", "jupyterlab", "msgspec", "nbconvert", "networkx", "numpy",
    "opentelemetry", "pandas", "papermill", "plotly", "psycopg", "pyarrow", "redis", "tqdm",
}  # fmt: skip
NOT_IN_STRANGERS_PROCESSES = {
    "pandas", "pyarrow", "networkx", "plotly", "papermill", "numpy", "aiohttp", "asyncssh", "jupyterlab",
}  # fmt: skip
INTERPRETERS_SHARE = 0.5


def test_importing_perflab_loads_nothing_heavy():
    """``import perflab`` brings none of the libraries, and few modules next to a bare interpreter's."""
    # Given what a bare interpreter with the same start-up code loads
    bare = _loaded("import json, sys")
    # When perflab is imported
    loaded = _loaded("import json, sys, perflab")
    # Then it adds no library, and less than half of what was there
    assert _tops(loaded) & HEAVY == set()
    assert len(loaded - bare) < INTERPRETERS_SHARE * len(bare), sorted(loaded - bare)


def test_importing_the_command_line_loads_nothing_heavy():
    """The list of verbs is shown without a library being imported."""
    loaded = _loaded(
        "import json, sys, contextlib, io, perflab.cli as cli\n"
        "with contextlib.redirect_stdout(io.StringIO()): assert cli.main(['--help']) == 0"
    )
    assert _tops(loaded) & HEAVY == set()


def test_every_public_name_can_be_imported():
    """Each name in ``perflab.__all__`` is there and is told by ``dir``."""
    for name in perflab.__all__:
        assert getattr(perflab, name) is not None
    assert set(perflab.__all__) <= set(dir(perflab))


def test_the_agent_stays_light():
    """The agent, which lives in strangers' processes, brings none of the analysts' libraries."""
    loaded = _loaded("import json, sys, perflab.shadow.agent")
    assert _tops(loaded) & NOT_IN_STRANGERS_PROCESSES == set()


def test_the_demo_shop_knows_nothing_of_perflab(root: Path, modules: dict[Path, ast.Module]):
    """No module of the demo imports or names perflab's rooms or OpenTelemetry, not even as text."""
    shop = {path: tree for path, tree in modules.items() if path.is_relative_to(root / "perflab/demo")}
    assert shop
    found = [
        f"{path.relative_to(root)}: {name}"
        for path, tree in shop.items()
        for name in _imported(tree)
        if name.partition(".")[0] == "opentelemetry"
        or (name.partition(".")[0] == "perflab" and not f"{name}.".startswith("perflab.demo."))
    ]
    found += [
        f"{path.relative_to(root)}:{number}: {line.strip()}"
        for path in shop
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if "import_module(" in line or "__import__(" in line or "from opentelemetry" in line
    ]
    assert found == []


def _loaded(code: str) -> set[str]:
    """Return the modules a fresh interpreter has loaded after running some code."""
    script = f"{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def _tops(loaded: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in loaded}


def _imported(tree: ast.Module) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names
