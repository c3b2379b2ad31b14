"""Which file a name given to SQLite means, and whether marked work may open it.

SQLite reads names as paths or as ``file:`` URIs; one file has many names (relative, symbolic and hard links).
Files are compared by real path and by device and inode.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

from perflab.shadow.stores import Place, Twin

_KEPT = ("cache", "immutable", "mode", "nolock", "psow", "vfs")
"""Parameters of a URI that the shadow's gets too."""


@dataclass(frozen=True, slots=True)
class Named:
    """What a name means.

    Parameters
    ----------
    path : str
        Of the file; ``""`` for a database that is gone when it is closed.
    options : mapping
        Parameters of the URI.
    unclear : str
        Why it cannot be told which file it is, or who shares it; ``""`` when it can.
    """

    path: str
    options: Mapping[str, str] = field(default_factory=dict)
    unclear: str = ""


def read_name(name: Any, *, uri: bool) -> Named:
    """Read a name as SQLite does.

    Parameters
    ----------
    name : str, bytes or path
        As given to ``sqlite3.connect`` or ``ATTACH``.
    uri : bool
        Whether URIs are read as such.

    Examples
    --------
    >>> read_name("file:/var/lib/shop.db?mode=ro", uri=True)
    Named(path='/var/lib/shop.db', options={'mode': 'ro'}, unclear='')
    >>> read_name(":memory:", uri=False).path
    ''
    """
    text = os.fsdecode(name)
    if not text.startswith("file:"):
        return Named("" if text in ("", ":memory:") else text)
    if not uri:  # some builds of SQLite read it as a URI all the same
        return Named(text, {}, "a URI without uri=True")
    rest, _, query = text.removeprefix("file:").partition("#")[0].partition("?")
    if rest.startswith("//"):
        host, slash, rest = rest[2:].partition("/")
        if host not in ("", "localhost"):
            return Named("", {}, f"a URI that names the host {host!r}")
        rest = slash + rest
    pairs = parse_qsl(query, keep_blank_values=True, errors="surrogateescape")
    options = dict(pairs)
    path = unquote(rest, errors="surrogateescape")
    if len(options) < len(pairs) or "\0" in path:
        return Named(path, options, "a URI that says something twice or holds a zero byte")
    if options.get("vfs", "unix").partition("-")[0] != "unix":
        return Named(path, options, f"a file of the VFS {options['vfs']!r}")
    if path in ("", ":memory:") or options.get("mode") == "memory":
        shared = options.get("cache") == "shared"
        return Named("", options, "a database in memory that others share" if shared else "")
    return Named(path, options)


def place_of(path: str, known: Sequence[Twin]) -> Place:
    """Return the place a path means, as the configuration names it where it is a known file."""
    for twin in known:
        for there in (twin.shadow, twin.production):
            if same_file(path, there.database):
                return there
    return Place("", 0, os.path.realpath(path))


def same_file(one: str, other: str) -> bool:
    """Tell whether two paths are one file, there or not."""
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def shadow_uri(twin: Twin, options: Mapping[str, str]) -> str:
    """Return the URI that opens the shadow of a file and never makes one.

    Parameters
    ----------
    twin : Twin
        The file and its shadow.
    options : mapping
        Parameters the service gave.
    """
    kept = {key: value for key, value in options.items() if key in _KEPT}
    if kept.get("mode") != "ro":
        kept["mode"] = "rw"
    return f"file:{quote(twin.shadow.database)}?{urlencode(kept)}"
