"""What a MariaDB server shares among its databases, so that a shadow of its own does not keep it apart.

Rights keep a login out of everything else; these it may use, and they are told by the statement's text.
A text that is put together on the server and executed there can hide them: that is not covered.
"""

from __future__ import annotations

import re
from typing import Any

from perflab.shadow import scope
from perflab.shadow.sql.pymysql import lead_of
from perflab.shadow.sql.statement_mariadb import REACHING_OUT, USER_LOCKS, without_values

_SHARED = re.compile(rf"{USER_LOCKS}|\bengine\b", re.IGNORECASE)
_LOCKS = re.compile(rf"{USER_LOCKS}[`\s]*\(", re.IGNORECASE)
_ENGINES = re.compile(rf"\bengine\s*=?\s*['\"`]?({'|'.join(REACHING_OUT)})\b", re.IGNORECASE)
_KEEPS_TEXT = ("SET", "PREPARE", "EXECUTE")


def refuse_shared(connection: Any, text: str) -> None:
    """Refuse marked work what a separate database does not keep apart on production's server.

    User locks (``GET_LOCK``) are the server's; tables of engines that reach other servers may be anywhere.

    Raises
    ------
    ShadowError
        If the statement names one of them; in texts that are executed later, even in a string.
    """
    lead = lead_of(connection)
    if lead is None or not _SHARED.search(text):
        return
    bare = without_values(text).replace('"', "`")
    if bare.lstrip("(; \n\t").upper().startswith(_KEEPS_TEXT):
        bare += text
    lock = _LOCKS.search(bare) if lead.one_server else None
    if lock is not None:
        scope.refuse(
            lead.twin.store.name,
            f"{lock[1].upper()}: user locks are shared by all databases of a server, and the shadow is on"
            " production's",
        )
    engine = _ENGINES.search(bare)
    if engine is not None:
        scope.refuse(lead.twin.store.name, f"a table of engine {engine[1].upper()} may reach any server")
