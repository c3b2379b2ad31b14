"""The shadow login has no powers, no groups, and a limit."""

from __future__ import annotations

from contextlib import closing

import pytest
from live_production import wish
from prepared_server import PASSWORD, enter

from perflab.demo.stores import PostgresServer
from perflab.errors import ConfigError
from perflab.shadow.prepare import prepare
from perflab.shadow.prepare.login import allowed_connections, check_login, groups_of, make_role
from perflab.shadow.prepare.session import open_session


def test_a_quarter_of_the_servers_sessions_is_allowed(preparing: PostgresServer) -> None:
    """Of 200, less three for superusers."""
    with closing(open_session(preparing.admin_dsn)) as session:
        assert allowed_connections(session) == (200 - 3) // 4


@pytest.mark.parametrize(
    ("role", "password", "settings", "message"),
    [
        ("", "x", {}, "names no login"),
        ("x", "", {}, "has no password"),
        (
            "x",
            "x",
            {"work_mem": "1MB"},
            "no setting 'work_mem' for the shadow login; there are: statement_timeout",
        ),
    ],
)
def test_a_login_that_cannot_be_is_refused(
    role: str, password: str, settings: dict[str, str], message: str
) -> None:
    """Nobody could be kept from entering without a password."""
    with pytest.raises(ConfigError, match=message):
        check_login(role, password, settings)


def test_groups_and_powers_are_taken_away(prepared: PostgresServer) -> None:
    """Whoever gave them, and in whose name."""
    with closing(open_session(prepared.admin_dsn)) as session:
        # Given
        session.execute("CREATE ROLE readers")
        session.execute("GRANT pg_read_all_data TO app WITH ADMIN OPTION")
        session.execute("GRANT readers TO shop_shadow")
        session.execute("SET ROLE app")
        session.execute("GRANT pg_read_all_data TO shop_shadow")
        session.execute("RESET ROLE")
        session.execute("ALTER ROLE shop_shadow SUPERUSER CREATEROLE BYPASSRLS")
        assert groups_of(session, "shop_shadow") == ["pg_read_all_data", "readers"]

        # When
        make_role(session, "shop_shadow", "shop_shadow", PASSWORD, 9, {})

        # Then
        assert groups_of(session, "shop_shadow") == []
        assert session.execute(
            "SELECT rolsuper, rolinherit, rolcreaterole, rolbypassrls, rolcanlogin, rolconnlimit"
            " FROM pg_roles WHERE rolname = 'shop_shadow'"
        ).fetchone() == (False, False, False, False, False, 9)
        session.execute("DROP ROLE readers")
        session.execute("REVOKE pg_read_all_data FROM app CASCADE")


def test_settings_keep_shadow_work_from_holding_things_forever(prepared: PostgresServer) -> None:
    """They are those asked for, and reset when not asked for again."""
    # When
    settings = {"lock_timeout": "3s", "idle_in_transaction_session_timeout": "30s"}
    prepare(wish(prepared, settings=settings))

    # Then
    with enter(prepared, "shop_shadow") as session:
        assert session.execute("SHOW lock_timeout").fetchone() == ("3s",)
        assert session.execute("SHOW idle_in_transaction_session_timeout").fetchone() == ("30s",)
    prepare(wish(prepared))
    with enter(prepared, "shop_shadow") as session:
        assert session.execute("SHOW lock_timeout").fetchone() == ("0",)


def test_an_applications_settings_are_taken_over(prepared: PostgresServer) -> None:
    """Those for production before those for all databases; taken back when not asked for again."""
    with closing(open_session(prepared.admin_dsn)) as session:
        session.execute("ALTER ROLE app SET search_path = audit")
        session.execute("ALTER ROLE app SET work_mem = '5MB'")
        session.execute("ALTER ROLE app IN DATABASE shop SET search_path = audit, public")
        try:
            prepare(wish(prepared, like="app"))
            with enter(prepared, "shop_shadow") as inside:
                assert inside.execute("SHOW search_path").fetchone() == ("audit, public",)
                assert inside.execute("SHOW work_mem").fetchone() == ("5MB",)
            with pytest.raises(ConfigError, match="no login 'nobody' to take settings from"):
                prepare(wish(prepared, like="nobody"))
            prepare(wish(prepared))
            with enter(prepared, "shop_shadow") as inside:
                assert inside.execute("SHOW work_mem").fetchone() != ("5MB",)
        finally:
            session.execute("ALTER ROLE app RESET ALL")
            session.execute("ALTER ROLE app IN DATABASE shop RESET ALL")
