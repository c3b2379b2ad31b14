"""Execute a notebook template through papermill: all of it, or nothing but an explanation.

The kernel is this very interpreter, started through a kernel specification that exists only in memory (a
``python3`` specification on the machine may point anywhere), with its files in a temporary folder (HOME
stays untouched), in a process group of its own that is killed on every way out. Papermill runs on a
thread, so that the caller's thread can keep the deadline and still be interrupted.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perflab.errors import ReportError
from perflab.report.template import Template, check_params, load_template

DEADLINE_S = 300.0
_POLL_S = 0.1
_KILL_GRACE_S = 15.0
_INJECTED_TAG = "injected-parameters"


def render(
    template: str | Path,
    params: Mapping[str, Any],
    into: Path,
    deadline_s: float = DEADLINE_S,
    cancelled: threading.Event | None = None,
    scratch: Path | None = None,
) -> Path:
    """Execute a template with parameters into a notebook.

    Parameters
    ----------
    template : str or Path
        A template's path, or the name of one that perflab ships.
    params : mapping
        Parameter -> value, checked against what the template declares before anything is started.
    into : Path
        The executed notebook; it appears whole or not at all.
    deadline_s : float
        Seconds for everything, the kernel's start included.
    cancelled : threading.Event, optional
        Setting it from another thread ends the rendering.
    scratch : Path, optional
        Where the kernel's folder is made, instead of among the system's temporary ones.

    Returns
    -------
    Path
        ``into``.

    Raises
    ------
    ConfigError
        If there is no such template, or the parameters are not what it declares.
    ReportError
        If a cell failed, the deadline passed or it was cancelled. The message names the cell, its first
        line and its error; what was executed so far is kept as ``<into>.failed.ipynb``.
    """
    path = _template_path(template)
    declared = load_template(path)
    given = check_params(declared, params)
    into = Path(into)
    into.parent.mkdir(parents=True, exist_ok=True)
    aside = into.with_name(f".{into.name}.{os.getpid()}-{threading.get_ident()}.ipynb")
    failed = into.with_name(f"{into.name}.failed.ipynb")
    try:
        _execute(declared, given, aside, deadline_s, cancelled, scratch)
        _settle(aside, given)
        aside.replace(into)
        failed.unlink(missing_ok=True)
    except ReportError as error:
        if aside.exists():
            aside.replace(failed)
            raise ReportError(f"{error}; what was executed is kept in {failed}") from error
        raise
    finally:
        aside.unlink(missing_ok=True)
    return into


def _template_path(template: str | Path) -> Path:
    from perflab.report.template import find_template

    if isinstance(template, Path) or template.endswith(".ipynb"):
        path = Path(template)
        return path if path.exists() else find_template(path.name)
    return find_template(template)


def _execute(
    template: Template,
    params: Mapping[str, Any],
    aside: Path,
    deadline_s: float,
    cancelled: threading.Event | None,
    scratch: Path | None,
) -> None:
    """Run papermill on a thread and wait for it, for the deadline or for the caller's change of mind."""
    from perflab.report.kernel import OwnKernel

    ends_at = time.monotonic() + deadline_s
    with tempfile.TemporaryDirectory(prefix="perflab-render-", dir=scratch) as text:
        folder = Path(text)
        params_file = folder / "params.json"
        params_file.write_text(json.dumps(params, ensure_ascii=False, indent=2), encoding="utf-8")
        kernel = OwnKernel.in_folder(folder)
        failures: list[BaseException] = []
        worker = threading.Thread(
            target=_papermill,
            args=(template, params_file, aside, kernel, deadline_s, failures),
            name="perflab-render",
            daemon=True,
        )
        worker.start()
        try:
            stopped_by = _wait(worker, ends_at, cancelled)
            reached = _reached(aside)
        finally:
            kernel.kill()
            worker.join(_KILL_GRACE_S)
            kernel.close()
        if stopped_by:
            waited = f"its deadline of {deadline_s:g} s" if stopped_by == "deadline" else stopped_by
            raise ReportError(f"rendering {template.path.name} was ended by {waited} {reached}")
        if failures:
            raise _explained(template, failures[0]) from failures[0]


def _wait(worker: threading.Thread, ends_at: float, cancelled: threading.Event | None) -> str:
    """Return "" when the worker is done, or what to stop it for."""
    while worker.is_alive():
        if cancelled is not None and cancelled.is_set():
            return "its caller"
        left_s = ends_at - time.monotonic()
        if left_s <= 0:
            return "deadline"
        worker.join(min(left_s, _POLL_S))
    return ""


def _papermill(
    template: Template,
    params_file: Path,
    aside: Path,
    kernel: Any,
    deadline_s: float,
    failures: list[BaseException],
) -> None:
    import papermill

    logging.getLogger("papermill").addHandler(logging.NullHandler())  # a kernel we kill is no news
    try:
        papermill.execute_notebook(
            str(template.path),
            str(aside),
            parameters={"params_file": str(params_file)},
            kernel_name="python3",
            language="python",
            progress_bar=False,
            start_timeout=max(int(deadline_s), 1),
            km=kernel,
            record_timing=False,
            autosave_cell_every=0,
        )
    except BaseException as failure:
        failures.append(failure)


def _explained(template: Template, failure: BaseException) -> ReportError:
    """Say which cell failed and why, counting cells as the template's reader does, from 1."""
    from papermill.exceptions import PapermillExecutionError

    if not isinstance(failure, PapermillExecutionError):
        return ReportError(f"rendering {template.path.name} failed: {type(failure).__name__}: {failure}")
    number = failure.cell_index  # from 0, and one cell of parameters was put in before it: from 1
    source = failure.source.strip()
    first_line = source.splitlines()[0] if source else ""
    return ReportError(
        f"cell {number} of {template.path.name} failed: {failure.ename}: {failure.evalue} "
        f"(the cell begins: {first_line})"
    )


def _reached(aside: Path) -> str:
    """Say how far the notebook got."""
    try:
        cells = json.loads(aside.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError):
        return "before the first cell ran"
    states = [cell.get("metadata", {}).get("papermill", {}).get("status") for cell in cells]
    done = sum(state == "completed" for state in states)
    return f"after {done} of {len(cells)} cells"


def _settle(notebook: Path, params: Mapping[str, Any]) -> None:
    """Take out of an executed notebook what differs between two equal renderings, and say what was given."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    content["metadata"].pop("papermill", None)
    content["metadata"].pop("language_info", None)
    content["metadata"].setdefault("perflab", {})["given"] = dict(params)
    for number, cell in enumerate(content["cells"]):
        cell["metadata"].pop("papermill", None)
        cell["metadata"].pop("execution", None)
        if _INJECTED_TAG in cell["metadata"].get("tags", []):
            cell["id"] = "given"
            cell["source"] = '# the parameters given are in the metadata of this notebook\nparams_file = ""'
        cell.setdefault("id", f"cell-{number}")
    notebook.write_text(
        json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )
