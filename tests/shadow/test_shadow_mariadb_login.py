"""Sessions on a real MariaDB for the controller's own questions."""

from __future__ import annotations

from contextlib import closing

import pymysql
import pytest
from mariadb_server import MariaServer

from perflab.demo.spawn import free_port
from perflab.errors import ShadowError
from perflab.shadow.mariadb_login import arguments, connect, rows, variable


def test_a_sessions_statements_and_locks_time_out(mariadb: MariaServer) -> None:
    """A question that takes too long is ended by the server."""
    with closing(connect(mariadb.admin_url, statement_timeout_s=0.2)) as session:
        assert rows(session, "SELECT @@max_statement_time, @@lock_wait_timeout")[0] == (0.2, 2)
        with pytest.raises(pymysql.OperationalError, match="max_statement_time exceeded"):
            rows(session, "SELECT SLEEP(5)")
        assert variable(session, "log_bin") == "ON"
        assert variable(session, "no_such_variable") == ""


def test_who_is_not_let_in_is_told_what_the_server_said(mariadb: MariaServer) -> None:
    """A wrong password, and a server that is not there."""
    with pytest.raises(ShadowError, match=r"Access denied .*\(error 1045\)"):
        connect(mariadb.url("", "admin", "wrong"))
    with pytest.raises(ShadowError, match="no session on MariaDB"):
        connect(f"mariadb://a:b@127.0.0.1:{free_port()}/x")


def test_sockets_and_certificates_are_read_from_the_url() -> None:
    """A socket instead of a host; TLS by its files."""
    found = arguments("mysql://u:p@localhost/shop?unix_socket=/run/mysqld/mysqld.sock")
    assert found["unix_socket"] == "/run/mysqld/mysqld.sock"
    assert "host" not in found
    assert arguments("mariadb://u@db/shop?ssl_ca=/etc/ca.pem")["ssl_ca"] == "/etc/ca.pem"
