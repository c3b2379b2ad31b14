"""perflab shadow verify: what it says of a run's proof, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perflab import cli
from perflab.run import Run
from perflab.shadow.audit.signature import Signer

CONFIG = """
[targets.shop]
addresses = ["127.0.0.1:1"]
control = "control.json"
control_key = {{ file = "{folder}/control" }}
signing_key = {{ file = "{folder}/signing" }}

[targets.other]
addresses = ["127.0.0.1:1"]
control = "control.json"
control_key = {{ file = "{folder}/control" }}
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Make a signed run, and a perflab.toml with the target it was made for."""
    (tmp_path / "control").write_text("c")
    (tmp_path / "signing").write_text("s")
    (tmp_path / "perflab.toml").write_text(CONFIG.format(folder=tmp_path))
    made = Run.create(tmp_path / "runs")
    made.write_info({"verdict": "passed"})
    made.write_isolation({"stores": [], "seen": 2, "proven": 2, "leaks": []})
    Signer(b"s").sign(made.path)
    return made


def verify(run: Run, *more: str) -> int:
    """Run the command on a run's directory."""
    config = str(run.path.parent.parent / "perflab.toml")
    return cli.main(["shadow", "verify", str(run.path), "--config", config, *more])


def test_an_unaltered_run_with_its_targets_key(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """It says when, by whom, and what was proven; exit code 0."""
    assert verify(run, "--target", "shop") == 0
    said = capsys.readouterr().out
    assert "was signed on 20" in said
    assert "It is the key that was expected." in said
    assert "Verdict: passed; isolation is proven of 2 of 2 stores, 0 leaks." in said


def test_the_key_of_another_target(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Unaltered, but signed by somebody else: exit code 1."""
    assert verify(run, "--target", "other") == 1
    assert "It is NOT the key that was expected." in capsys.readouterr().out


def test_a_public_key_from_a_file(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who has no secret can check with the public key; without one it is said what was not checked."""
    key = tmp_path / "key.pub"
    key.write_text(Signer(b"s").public_key)
    assert verify(run, "--public-key", str(key)) == 0
    assert verify(run) == 0
    assert "Whose key that is was not checked" in capsys.readouterr().out
    key.write_text("nonsense")
    assert verify(run, "--public-key", str(key)) == 2


def test_what_was_altered_is_said(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """An altered verdict, in sentences and as JSON; exit code 1."""
    run.write_info({**run.info, "verdict": "failed", "bottleneck": "stock"})
    assert verify(run) == 1
    said = capsys.readouterr().out
    assert "run.json: 'verdict' was altered" in said
    assert "Added since then, and not signed: run.json: 'bottleneck'." in said
    assert verify(run, "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["holds"], told["altered"]) == (False, ["run.json: 'verdict' was altered"])


def test_a_run_without_a_signature(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing to check against is no proof: exit code 1; a broken signature too."""
    (run.path / "isolation.sig").write_text("{")
    assert verify(run) == 1
    (run.path / "isolation.sig").unlink()
    assert verify(run) == 1
    said = capsys.readouterr().out
    assert "isolation.sig cannot be read as a signature" in said
    assert "is not signed" in said
