"""A library whose internals are missing is reported as failed, with what is missing, and never skipped."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import pytest
from attached_service import Service
from two_sides import Sides

from perflab.cli.attach import attached_environment
from perflab.errors import ShadowError
from perflab.shadow.sql.internals import require

DOCTORED = {
    "asyncpg/__init__.py": "__version__ = '0.40.0'\nclass Connection: pass\n",
    "asyncpg/connect_utils.py": "async def _connect(**given): ...\n",
    "asyncpg/pool.py": "class Pool: pass\nclass PoolConnectionHolder: pass\n",
    "asyncpg/protocol.py": "class Protocol: pass\n",
    "asyncpg/transaction.py": "class Transaction: pass\n",
    "sqlalchemy/__init__.py": "__version__ = '1.4.54'\n",
    "sqlalchemy/pool/__init__.py": "",
    "sqlalchemy/pool/base.py": "class Pool:\n    def connect(self): ...\nclass _ConnectionFairy: pass\n",
    "sqlalchemy/pool/impl.py": "class SingletonThreadPool: pass\n",
    "sqlalchemy/util/__init__.py": "",
    "sqlalchemy/util/queue.py": "class AsyncAdaptedQueue: pass\n",
}


def states() -> Any:
    from perflab.shadow.scope import process

    for name in ("asyncpg", "sqlalchemy.pool.base"):
        importlib.import_module(name)
    return process.ledger.hooks


def test_a_doctored_library_fails_its_hook(sides: Sides, tmp_path: Path) -> None:
    """The preflight reads the state and the reason; the library itself is left as it was."""
    # Given
    for name, text in DOCTORED.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    environment = attached_environment(sides.target, "shop")
    environment["PYTHONPATH"] = os.pathsep.join([environment["PYTHONPATH"], str(tmp_path)])
    # When
    with Service(environment) as doctored:
        hooks = doctored.call(states)
    # Then
    assert hooks["asyncpg"]["state"] == hooks["sqlalchemy"]["state"] == "failed"
    assert "asyncpg 0.40.0 is not a version perflab knows: it has no" in hooks["asyncpg"]["reason"]
    for part in ("connect_utils._parse_connect_arguments", "Protocol.query", "Pool._acquire"):
        assert part in hooks["asyncpg"]["reason"]
    for part in ("base.PoolProxiedConnection", "_ConnectionFairy.detach", "impl.QueuePool"):
        assert part in hooks["sqlalchemy"]["reason"]


def test_an_old_version_is_named() -> None:
    """By number, where nothing is missing but what it means."""
    require("asyncpg", "0.30.0", {}, at_least="0.30")
    require("asyncpg", "1.0.0b1", {}, at_least="0.30")
    with pytest.raises(ShadowError, match=r"asyncpg 0\.29\.0 .* needs 0\.30 or newer"):
        require("asyncpg", "0.29.0", {}, at_least="0.30")
