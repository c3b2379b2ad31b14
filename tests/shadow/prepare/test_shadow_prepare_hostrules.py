"""Rules of pg_hba.conf: read, judged as the server matches them, put in force, proven by knocking."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from live_production import wish
from prepared_server import PASSWORD, enter, rights

from perflab.demo.stores import PostgresServer
from perflab.errors import ConfigError
from perflab.shadow.prepare import drop_postgresql, prepare
from perflab.shadow.prepare.hostrules import put_in_force, read_host_rules, rule_lines
from perflab.shadow.prepare.session import open_session

GOOD = "\n".join(rule_lines("shop_shadow", "shop_shadow"))


@pytest.fixture
def hba(preparing: PostgresServer) -> Iterator[Path]:
    """Give the server's file back as it was."""
    with closing(open_session(preparing.admin_dsn)) as session:
        path = Path(read_host_rules(session, "shop_shadow", "shop_shadow").path)
        before = path.read_text(encoding="utf-8")
        yield path
        path.write_text(before, encoding="utf-8")
        assert put_in_force(session)


@pytest.mark.parametrize(
    ("above", "gap"),
    [
        (GOOD, ""),
        ("", r"line \d+ lets 'shop_shadow' into other databases"),
        (GOOD.replace("reject", "trust"), r"line 3 lets .* \(local, trust\)"),
        ("\n".join(GOOD.splitlines()[:3]), r".*\(host, "),
        ("hostssl all all all md5\n" + GOOD, "line 1 lets"),
        ("host all,postgres /^shop 10.0.0.0/8 md5\n" + GOOD, "line 1 lets"),
        ("host sameuser all all md5\nhost shop_shadow all all md5\n" + GOOD, ""),
        ("host all app,+readers all md5\nhost replication all all md5\n" + GOOD, ""),
        ("host all all nonsense md5x\n" + GOOD, "line 1: "),
    ],
)
def test_a_file_is_judged_before_it_is_in_force(
    preparing: PostgresServer, hba: Path, above: str, gap: str
) -> None:
    """The first rule that could let the login into another database is named."""
    hba.write_text(f"{above}\n{hba.read_text(encoding='utf-8')}", encoding="utf-8")
    with closing(open_session(preparing.admin_dsn)) as session:
        found = read_host_rules(session, "shop_shadow", "shop_shadow").gap
    assert re.fullmatch(f"{gap}.*" if gap else "", found)


def test_a_shadow_kept_out_by_rules(preparing: PostgresServer, hba: Path) -> None:
    """Without the lines nothing is changed; with them no privilege is, and the login is rejected."""
    # Given
    before = rights(preparing)

    # When it is asked for, and the lines are not there
    with pytest.raises(ConfigError, match=r"Put these lines into .*pg_hba.conf .*above line \d+:\n +local"):
        prepare(wish(preparing, keep_out="hba"))
    assert rights(preparing) == before
    hba.write_text(f"{GOOD}\n{hba.read_text(encoding='utf-8')}", encoding="utf-8")
    made = prepare(wish(preparing, keep_out="hba"))

    # Then
    assert made.closed == ()
    assert set(made.refused) == {"postgres", "shop", "template1"}
    with pytest.raises(psycopg.OperationalError, match="rejects connection"):
        enter(preparing, "shop")
    with enter(preparing, "shop_shadow") as session:
        assert session.execute("SELECT count(*) FROM orders").fetchone() == (0,)

    # And it holds the next time, without being chosen again
    assert prepare(wish(preparing)).kept_out == "hba"
    done = drop_postgresql(preparing.admin_dsn, "shop_shadow", "shop_shadow")
    assert any(f"in {hba} any more: take them out" in line for line in done)
    assert rights(preparing) == before
    assert PASSWORD not in str(done)
