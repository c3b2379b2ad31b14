"""Choose the modules of the wheel ``perflab-agent``: all of the shadow room but the controller's side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CONTROLLERS = (
    "audit",
    "prepare",
    "wheel",
    "fleet.py",
    "journey.py",
    "killswitch.py",
    "mariadb_login.py",
    "preflight.py",
    "refusal.py",
)
"""What only the controller uses: it judges agents, production and shadows from outside."""
BESIDE = (
    "__init__.py", "__main__.py", "py.typed", "config.py", "errors.py", "units.py", "cli/__init__.py",
    "cli/_attachable.py", "cli/attach.py",
)  # fmt: skip


class AgentModules(BuildHookInterface[Any]):
    """Adds the agent's modules to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - the interface's
        """Tell the builder what goes where."""
        shadow = Path(self.root).parent
        package = shadow.parent
        files = [package / name for name in BESIDE]
        files += [
            path for path in shadow.rglob("*.py") if path.relative_to(shadow).parts[0] not in CONTROLLERS
        ]
        build_data["force_include"] = {str(path): f"perflab/{path.relative_to(package)}" for path in files}
