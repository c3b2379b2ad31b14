"""Sign what a run proved, so that it can be told later whether anything was altered.

``isolation.sig`` lies in the run's directory: the digests of ``isolation.json``, ``preflight.json`` and
``run.json`` (one for each of their keys, so that it can be said *what* was altered), of ``events.jsonl`` as
far as it went, of the evidence of leaks and of the spans; and an Ed25519 signature over all that.

The key is derived (HKDF-SHA256) from the target's control key, or from a ``signing_key`` of its own. Attached
processes have the control key, since it lets them believe the list of live runs: whoever may read it
there could sign as well. A ``signing_key`` need not leave the controller's machine, and is better.

A signature says who signed and that nothing was altered since. It does not make true what was signed.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perflab.config import Target
from perflab.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE = "isolation.sig"
FORMAT_VERSION = 1
_BY_KEY = ("isolation.json", "preflight.json", "run.json")
_GROWS = ("run.json", "events.jsonl")  # reports and analyses add to them
# whatever somebody may have written into a file: 1e999 is a number of JSON, a thousand brackets a list
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
_INFO = b"perflab isolation signature"


@dataclass(frozen=True, slots=True)
class Checked:
    """What became of a signature.

    Parameters
    ----------
    signed : bool
        Whether there is a signature that can be read.
    altered : tuple of str
        What is not as it was signed, in plain words; a signature that is wrong itself comes first.
    added : tuple of str
        What was added to ``run.json`` since, which a report may do.
    signed_ns : int
        When (Unix ns), as the signer's clock had it.
    public_key : str
        Of the signer, 64 hex characters.
    trusted : bool or None
        Whether it is the key that was expected; None where none was.
    """

    signed: bool = False
    altered: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    signed_ns: int = 0
    public_key: str = ""
    trusted: bool | None = None

    @property
    def holds(self) -> bool:
        """Whether it is signed, unaltered, and not by another key than the expected one."""
        return self.signed and not self.altered and self.trusted is not False


class Signer:
    """Signs run directories with one key.

    Parameters
    ----------
    secret : bytes
        What the key is derived from.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = _derive(secret)

    @classmethod
    def of(cls, target: Target) -> Signer:
        """Take a target's ``signing_key``, else its control key.

        Raises
        ------
        ConfigError
            If the secret cannot be read, or is empty.
        """
        secret = (target.signing_key or target.control_key).read().encode()
        if not secret:
            raise ConfigError("the key that signs the proof is empty (signing_key, or control_key)")
        return cls(secret)

    @property
    def public_key(self) -> str:
        """What signatures are checked with: 64 hex characters."""
        return _hex(self._key.public_key())

    def sign(self, directory: Path) -> None:
        """Sign what a run's directory holds now; an earlier signature is replaced.

        Raises
        ------
        OSError
            If a file cannot be read or written.
        """
        signed = {
            "format_version": FORMAT_VERSION,
            "run": directory.name,
            "signed_ns": time.time_ns(),
            "files": {name: _digests(directory, name) for name in _files(directory)},
        }
        envelope = {
            "signed": signed,
            "public_key": self.public_key,
            "signature": self._key.sign(_canonical(signed)).hex(),
        }
        aside = directory / f".{SIGNATURE}.{os.getpid()}"
        aside.write_text(json.dumps(envelope, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        aside.replace(directory / SIGNATURE)


def check(directory: Path, *, public_key: str = "", spans: bool = True) -> Checked:
    """Check a run's directory against its signature.

    Parameters
    ----------
    directory : Path
        The run's.
    public_key : str
        The signer's, 64 hex characters, from a place other than the directory; without it the signature
        shows that nothing was altered since *somebody* signed.
    spans : bool
        Whether to read the span files too, which may be large.

    Returns
    -------
    Checked
        It never raises for what it finds in the directory.
    """
    path = directory / SIGNATURE
    if not path.exists():
        return Checked()
    try:
        envelope = json.loads(path.read_text(encoding="utf-8"))
        signed, key = envelope["signed"], str(envelope["public_key"])
        genuine = _is_genuine(signed, key, str(envelope["signature"]))
        files, run, signed_ns = dict(signed["files"]), str(signed["run"]), int(signed["signed_ns"])
        readable = 0 <= signed_ns < 1 << 63
    except _UNREADABLE:
        readable = False
    if not readable:
        return Checked(signed=True, altered=(f"{SIGNATURE} cannot be read as a signature",))
    altered = [] if genuine else [f"{SIGNATURE}: the signature does not fit what it lists"]
    if run != directory.name:
        altered.append(f"the run's name: {run!r} when it was signed, and {directory.name!r} now")
    added: list[str] = []
    for name in sorted({*files, *_files(directory)}):
        if name.startswith("spans/") and not spans:
            continue
        if name not in files:
            altered.append(f"{name} was added")
            continue
        more, less = _compare(directory, name, files[name])
        altered += less
        added += more
    trusted = key == public_key if public_key else None
    return Checked(True, tuple(altered), tuple(added), signed_ns, key, trusted)


def fingerprint(public_key: str) -> str:
    """Write a public key short enough to be compared by people: half its SHA-256, in groups of four.

    Examples
    --------
    >>> fingerprint("00" * 32)
    '6668 7aad f862 bd77 6c8f c18b 8e9f 8e20'
    """
    digest = hashlib.sha256(bytes.fromhex(public_key)).hexdigest()[:32]
    return " ".join(digest[at : at + 4] for at in range(0, 32, 4))


def read_public_key(path: Path) -> str:
    """Read a public key from a file: 64 hex characters, or PEM.

    Raises
    ------
    ConfigError
        If the file cannot be read or holds something else.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        text = path.read_text(encoding="utf-8").strip()
        if not text.startswith("-----"):
            return _hex(Ed25519PublicKey.from_public_bytes(bytes.fromhex(text)))
        key = load_pem_public_key(text.encode())
        if isinstance(key, Ed25519PublicKey):
            return _hex(key)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read a public key from {path}: {error}") from error
    raise ConfigError(f"{path} holds a public key, but none of Ed25519")


def _derive(secret: bytes) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=_INFO).derive(secret)
    return Ed25519PrivateKey.from_private_bytes(derived)


def _is_genuine(signed: Any, public_key: str, signature: str) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(bytes.fromhex(signature), _canonical(signed))
    except InvalidSignature:
        return False
    return True


def _hex(key: Ed25519PublicKey) -> str:
    return key.public_bytes_raw().hex()


def _canonical(value: Any) -> bytes:
    """Write JSON in the one way that is signed: keys sorted, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _files(directory: Path) -> list[str]:
    """Return the names of the files that are signed, those that are there."""
    found = [name for name in (*_BY_KEY, "events.jsonl") if (directory / name).is_file()]
    for part, pattern in (("evidence", "*.json"), ("spans", "*.parquet")):
        found += sorted(f"{part}/{path.name}" for path in (directory / part).glob(pattern))
    return found


def _digests(directory: Path, name: str) -> dict[str, Any]:
    content = (directory / name).read_bytes()
    if name in _BY_KEY:
        return {"keys": _digest_of_keys(content)}
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _digest_of_keys(content: bytes) -> dict[str, str]:
    found = json.loads(content)
    return {key: hashlib.sha256(_canonical(found[key])).hexdigest() for key in sorted(found)}


def _compare(directory: Path, name: str, signed: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return what was added to a file and what was altered in it since it was signed."""
    try:
        content = (directory / name).read_bytes()
        if name in _BY_KEY:
            return _compare_keys(name, dict(signed["keys"]), _digest_of_keys(content))
        if name in _GROWS:
            content = content[: int(signed["bytes"])]
        same = hashlib.sha256(content).hexdigest() == signed["sha256"]
    except OSError:
        return [], [f"{name} is not there any more"]
    except _UNREADABLE:
        return [], [f"{name} cannot be read any more"]
    return [], [] if same else [f"{name} was altered"]


def _compare_keys(
    name: str, signed: Mapping[str, str], now: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    altered = [f"{name}: {key!r} was altered" for key in signed if key in now and now[key] != signed[key]]
    altered += [f"{name}: {key!r} was taken out" for key in signed if key not in now]
    more: Iterable[str] = sorted(set(now) - set(signed))
    if name in _GROWS:
        return [f"{name}: {key!r}" for key in more], altered
    return [], altered + [f"{name}: {key!r} was added" for key in more]
