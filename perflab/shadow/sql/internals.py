"""Whether a library has inside what its hook stands on.

A hook that patches what is not there, or no longer used, would leave a hole that nobody sees. It asks here
first; what is missing makes it *failed*, with this reason, and the preflight refuses the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perflab.errors import ShadowError


def require(library: str, version: str, parts: Mapping[Any, str], *, at_least: str = "") -> None:
    """Check that a library has all its hook stands on.

    Parameters
    ----------
    library, version : str
        For people, and for ``at_least``.
    parts : mapping of object to str
        A module or class -> the names it must have, between spaces.
    at_least : str
        The oldest version the hook knows, like ``2.0``; ``""`` for any.

    Raises
    ------
    ShadowError
        If the version is older, or parts are missing; they are named.

    Examples
    --------
    >>> import json
    >>> require("json", "2.0.9", {json: "loads dumps"})
    >>> require("json", "2.0.9", {json: "loads parse"})
    Traceback (most recent call last):
    ...
    perflab.errors.ShadowError: json 2.0.9 is not a version perflab knows: it has no json.parse
    """
    if at_least and _numbers(version) < _numbers(at_least):
        raise ShadowError(f"{library} {version} is not a version perflab knows: it needs {at_least} or newer")
    missing = [
        f"{owner.__name__.rpartition('.')[2]}.{name}"
        for owner, names in parts.items()
        for name in names.split()
        if not hasattr(owner, name)
    ]
    if missing:
        raise ShadowError(
            f"{library} {version} is not a version perflab knows: it has no {', '.join(missing)}"
        )


def _numbers(version: str) -> tuple[int, ...]:
    """Read the leading numbers of a version: ``2.1.0b1`` is (2, 1)."""
    numbers = []
    for part in version.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)
