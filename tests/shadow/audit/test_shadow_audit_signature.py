"""What was signed is told from what was altered."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perflab.config import Secret, Target
from perflab.errors import ConfigError
from perflab.run import Run
from perflab.shadow.audit.signature import SIGNATURE, Signer, check, fingerprint, read_public_key


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Make a run's directory with everything that is signed."""
    made = Run.create(tmp_path)
    made.write_info({"verdict": "failed", "reason": "Isolation of shop is not proven."})
    made.write_isolation({"stores": [{"name": "shop", "proven": False}], "seen": 1, "proven": 0, "leaks": []})
    made.event("verdict", verdict="failed")
    made.keep_evidence({"store": "shop", "where": "orders"})
    (made.path / "spans" / "part-0.parquet").write_bytes(b"PAR1")
    return made


def test_an_unaltered_run_holds_and_says_who_signed(run: Run) -> None:
    """Signed, unaltered, with the expected key; another expected key does not hold."""
    # Given
    signer = Signer(b"control key")

    # When
    signer.sign(run.path)
    checked, another = check(run.path, public_key=signer.public_key), check(run.path, public_key="00" * 32)

    # Then
    assert (checked.signed, checked.altered, checked.trusted, checked.holds) == (True, (), True, True)
    assert checked.public_key == signer.public_key
    assert (another.trusted, another.holds) == (False, False)
    assert check(run.path).trusted is None
    assert len(fingerprint(signer.public_key)) == 39


def test_the_key_is_the_same_each_time_and_another_for_another_secret() -> None:
    """Derived, not made up: the fingerprint is worth writing down."""
    assert Signer(b"a").public_key == Signer(b"a").public_key != Signer(b"b").public_key


@pytest.mark.parametrize(
    ("file", "alter", "said"),
    [
        ("run.json", lambda found: {**found, "verdict": "passed"}, "run.json: 'verdict' was altered"),
        ("run.json", lambda found: {"verdict": found["verdict"]}, "run.json: 'reason' was taken out"),
        ("isolation.json", lambda found: {**found, "proven": 1}, "isolation.json: 'proven' was altered"),
        ("isolation.json", lambda found: {**found, "more": 1}, "isolation.json: 'more' was added"),
        ("evidence/leak-1.json", lambda found: {}, "evidence/leak-1.json was altered"),
        (SIGNATURE, lambda found: {**found, "signature": "00" * 64}, "does not fit what it lists"),
        (SIGNATURE, lambda found: {**found, "public_key": "00" * 32}, "does not fit what it lists"),
        (SIGNATURE, lambda found: {"signed": found["signed"]}, "cannot be read as a signature"),
    ],
)
def test_what_was_altered_is_named(run: Run, file: str, alter: Callable[[Any], Any], said: str) -> None:
    """Each file that is signed, and the signature itself."""
    # Given
    Signer(b"control key").sign(run.path)
    path = run.path / file

    # When
    path.write_text(json.dumps(alter(json.loads(path.read_text()))))
    checked = check(run.path)

    # Then
    assert not checked.holds
    assert any(said in line for line in checked.altered)


@pytest.mark.parametrize("text", ["1e999", "-1e999", "NaN", "1" * 40, '"soon"', "null", "[" * 20_000, "-1"])
def test_nothing_in_a_signature_raises(run: Run, text: str) -> None:
    """What is no moment, no number or no JSON is altered, and can be told in a report."""
    # Given
    Signer(b"control key").sign(run.path)
    path = run.path / SIGNATURE

    # When
    path.write_text(re.sub(r'"signed_ns": \d+', f'"signed_ns": {text}', path.read_text()))

    # Then
    assert check(run.path).altered == (f"{SIGNATURE} cannot be read as a signature",)


def test_files_that_went_came_or_were_cut_are_named(run: Run) -> None:
    """Events may grow and not shrink; evidence may not go; no span file may come."""
    # Given
    Signer(b"control key").sign(run.path)
    run.event("a report was made")
    assert check(run.path).holds

    # When
    (run.path / "events.jsonl").write_text("{}\n")
    (run.path / "evidence" / "leak-1.json").unlink()
    (run.path / "spans" / "part-1.parquet").write_bytes(b"PAR1")

    # Then
    assert check(run.path).altered == (
        "events.jsonl was altered",
        "evidence/leak-1.json is not there any more",
        "spans/part-1.parquet was added",
    )
    assert len(check(run.path, spans=False).altered) == 2


def test_a_signature_of_another_run_does_not_hold(run: Run, tmp_path: Path) -> None:
    """A good run's files under a bad run's name are told by the name."""
    # Given
    Signer(b"control key").sign(run.path)

    # When
    moved = run.path.rename(tmp_path / "20260101T000000-shadow-ffff")

    # Then
    assert "the run's name" in check(moved).altered[0]


def test_what_a_report_adds_is_named_and_alters_nothing(run: Run) -> None:
    """run.json gains the bottleneck after it was signed."""
    Signer(b"control key").sign(run.path)
    run.write_info({**run.info, "bottleneck": "stock"})
    assert check(run.path).holds
    assert check(run.path).added == ("run.json: 'bottleneck'",)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_changed_byte_of_the_signature_goes_unnoticed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any digit or letter of what is signed that is another makes it not hold, and nothing raises."""
    # Given
    run = Run.create(tmp_path_factory.mktemp("runs"))
    Signer(b"control key").sign(run.path)
    path = run.path / SIGNATURE
    text = path.read_text()
    places = [at for at, letter in enumerate(text) if letter.isalnum()]

    # When
    at = data.draw(st.sampled_from(places))
    letter = data.draw(st.sampled_from([other for other in "0123456789abcdef" if other != text[at].lower()]))
    path.write_text(text[:at] + letter + text[at + 1 :])

    # Then
    assert not check(run.path).holds


def test_a_directory_without_a_signature_is_not_signed(run: Run) -> None:
    """Nothing to check against is not "unaltered"."""
    assert not check(run.path).signed
    assert not check(run.path).holds


def test_the_targets_own_key_comes_before_the_control_key(tmp_path: Path) -> None:
    """``signing_key`` where there is one, else the control key; an empty one is refused."""
    # Given
    files = {}
    for name, text in (("control", "c"), ("signing", "s"), ("empty", "")):
        files[name] = Secret(file=str(tmp_path / name))
        (tmp_path / name).write_text(text)

    def target(control: str, signing: str = "") -> Target:
        return Target(("127.0.0.1:1",), "c", files[control], files[signing] if signing else None)

    # Then
    assert Signer.of(target("control")).public_key == Signer(b"c").public_key
    assert Signer.of(target("control", "signing")).public_key == Signer(b"s").public_key
    with pytest.raises(ConfigError, match="is empty"):
        Signer.of(target("empty"))


def test_public_keys_are_read_as_digits_or_pem(tmp_path: Path) -> None:
    """Whatever else is in the file is wrong input."""
    # Given
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519, x25519

    key = Signer(b"a").public_key
    form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    path = tmp_path / "key"

    # Then
    path.write_text(key + "\n")
    assert read_public_key(path) == key
    path.write_bytes(ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).public_bytes(*form))
    assert read_public_key(path) == key
    path.write_bytes(x25519.X25519PrivateKey.generate().public_key().public_bytes(*form))
    with pytest.raises(ConfigError, match="none of Ed25519"):
        read_public_key(path)
    for wrong in ("zz", "00", "-----BEGIN"):
        path.write_text(wrong)
        with pytest.raises(ConfigError, match="cannot read a public key"):
            read_public_key(path)
    with pytest.raises(ConfigError, match="cannot read a public key"):
        read_public_key(tmp_path / "nowhere")
