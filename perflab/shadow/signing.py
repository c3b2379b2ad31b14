"""What a controller signs for attached processes: a payload and an HMAC under the control key.

A control key may hold several lines, one key each: the first signs, each of them verifies. So the key is
changed without a gap: the new one is written above the old one, and when every process has read both, the
old line is taken out.
"""

from __future__ import annotations

import hmac
import json
from typing import Any

from perflab.errors import ConfigError


def keys_of(control_key: bytes) -> tuple[bytes, ...]:
    """Return the keys a control key holds, the one that signs first."""
    return tuple(filter(None, map(bytes.strip, control_key.splitlines()))) or (control_key,)


def signed(what: str, content: Any, control_key: bytes) -> bytes:
    """Write something JSON can hold, and sign it.

    Parameters
    ----------
    what : str
        Its kind, so that no kind is taken for another.
    content
        It.
    control_key : bytes
        One key, or several lines of them, of which the first signs.
    """
    payload = json.dumps(content)
    return json.dumps(
        {"payload": payload, "signature": _sign(what, payload, keys_of(control_key)[0])}
    ).encode()


def opened(what: str, content: bytes, control_key: bytes) -> tuple[Any, bytes]:
    """Check the signature and return what was signed, and the key it was signed with.

    Parameters
    ----------
    what : str
        Its kind, as it was signed.
    content : bytes
        What `signed` returned.
    control_key : bytes
        One key, or several lines of them.

    Raises
    ------
    ConfigError
        If it was signed with none of them.
    ValueError, TypeError, KeyError
        If it is nothing that was ever signed.
    """
    envelope = json.loads(content)
    payload, signature = envelope["payload"], str(envelope["signature"]).encode("utf-8", "replace")
    for key in keys_of(control_key):
        if hmac.compare_digest(signature, _sign(what, payload, key).encode()):
            return json.loads(payload), key
    raise ConfigError(f"{what} is not signed with this control key")


def _sign(what: str, payload: Any, key: bytes) -> str:
    return hmac.digest(key, f"perflab {what} {payload}".encode(), "sha256").hex()
