"""A run: one directory, one test.

::

    data/runs/<run-id>/
        run.json         what was asked, what came out (written whole, by rename)
        events.jsonl     what happened, one JSON object a line, appended as it happens
        isolation.json   the proof of isolation
        isolation.sig    digests of all this, signed
        evidence/*.json  leaks into production, each written down the moment it was found
        spans/*.parquet  spans of the services, and the generator's own requests
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perflab.errors import ConfigError, PerflabError

if TYPE_CHECKING:
    import pandas as pd

FORMAT_VERSION = 1
RUNS = Path("data/runs")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}")


class Run:
    """One test and all it left behind.

    Parameters
    ----------
    path : Path
        The run's directory.

    Attributes
    ----------
    run_id : str
        The directory's name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run_id = path.name

    @classmethod
    def create(cls, root: Path = RUNS, *, label: str = "run") -> Run:
        """Make a new run directory under ``root``, named after the time and ``label``.

        Raises
        ------
        PerflabError
            If the directory cannot be written.
        """
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        run = cls(root / f"{stamp}-{label}-{secrets.token_hex(2)}")
        try:
            (run.path / "spans").mkdir(parents=True)
            run.write_info({})
        except OSError as error:
            raise PerflabError(f"cannot write the run's directory {run.path}: {error}") from error
        return run

    @classmethod
    def open(cls, run: str | Path, root: Path = RUNS) -> Run:
        """Open a run by its directory, its id, or ``"latest"``.

        Raises
        ------
        ConfigError
            If there is no such run, or it was written by a newer perflab; the message lists what is there.
        """
        path = Path(run)
        if run == "latest":
            known = list_runs(root)
            if not known:
                raise ConfigError(f"there is no run in {root}; 'perflab demo' makes one")
            path = known[-1].path
        elif not (path / "run.json").is_file():
            path = root / str(run) if _NAME.fullmatch(str(run)) else path
        if not (path / "run.json").is_file():
            known_ids = ", ".join(item.run_id for item in list_runs(root)[-5:]) or "none"
            raise ConfigError(f"no run {str(run)!r}; the newest in {root} are: {known_ids}")
        found = cls(path)
        version = found.info.get("format_version")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise ConfigError(
                f"{path / 'run.json'} has format {version!r}; this perflab reads up to {FORMAT_VERSION}"
            )
        return found

    @property
    def info(self) -> dict[str, Any]:
        """What ``run.json`` says now."""
        return _read_json(self.path / "run.json")

    @property
    def isolation(self) -> dict[str, Any]:
        """The proof of isolation, or an empty dict where none was made."""
        path = self.path / "isolation.json"
        return _read_json(path) if path.exists() else {}

    @property
    def preflight(self) -> dict[str, Any]:
        """Where the mark travelled before the run (`perflab.shadow.journey`), or an empty dict."""
        path = self.path / "preflight.json"
        return _read_json(path) if path.exists() else {}

    @property
    def events(self) -> list[dict[str, Any]]:
        """What happened, oldest first; a line cut short by a crash is left out."""
        path = self.path / "events.jsonl"
        if not path.exists():
            return []
        events = []
        for line in path.read_bytes().split(b"\n"):  # bytes: a cut may fall inside a character
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                events.append(event)
        return events

    @property
    def verdict(self) -> str:
        """``passed``, ``failed``, ``stopped``, ``refused``, ``leaked`` or ``unfinished``."""
        return str(self.info.get("verdict", "unfinished"))

    @cached_property
    def spans(self) -> pd.DataFrame:
        """All spans of the run, the generator's requests included: one span table, read once."""
        from perflab.trace.store import read_spans

        return read_spans(self.path / "spans")

    def write_info(self, info: dict[str, Any]) -> None:
        """Replace ``run.json`` in one step."""
        self._write("run.json", {"format_version": FORMAT_VERSION, "run": self.run_id, **info})

    def write_isolation(self, proof: dict[str, Any]) -> None:
        """Replace ``isolation.json`` in one step."""
        self._write("isolation.json", {"format_version": FORMAT_VERSION, **proof})

    def keep_evidence(self, leak: dict[str, Any]) -> Path:
        """Write down a leak in a file of its own, and return its path."""
        folder = self.path / "evidence"
        folder.mkdir(exist_ok=True)
        name = f"evidence/leak-{len(list(folder.glob('leak-*.json'))) + 1}.json"
        self._write(name, {"format_version": FORMAT_VERSION, "run": self.run_id, **leak})
        return self.path / name

    def write_preflight(self, found: dict[str, Any]) -> None:
        """Replace ``preflight.json`` in one step."""
        self._write("preflight.json", {"format_version": FORMAT_VERSION, **found})

    def event(self, what: str, /, **details: Any) -> None:
        """Append one event with the time it was written."""
        record = {"time_ns": time.time_ns(), "event": what, **details}
        line = json.dumps(record, ensure_ascii=False, default=str).encode() + b"\n"
        with (self.path / "events.jsonl").open("a+b") as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                line = line if file.read(1) == b"\n" else b"\n" + line  # after a crash: half a line
            file.write(line)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.verdict})"

    def _write(self, name: str, content: dict[str, Any]) -> None:
        aside = (self.path / name).with_name(f".{Path(name).name}.{os.getpid()}")
        aside.write_text(
            json.dumps(content, ensure_ascii=False, indent=2, default=str) + "\n", encoding="utf-8"
        )
        aside.replace(self.path / name)


def list_runs(root: Path = RUNS) -> list[Run]:
    """Return the runs under ``root``, oldest first."""
    return [Run(path.parent) for path in sorted(root.glob("*/run.json"), key=lambda path: path.parent.name)]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds {type(content).__name__}, not an object")
    return content
