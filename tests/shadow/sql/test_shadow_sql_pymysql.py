"""PyMySQL routed on a real MariaDB: the shadow for marked work, production for everybody else."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pymysql
import pytest
from attached_service import Service, attempt, forget, is_refused, kept, marked, noted, poll
from maria_sides import APP, PASSWORD, ROLE, SHADOW, SHOP, MariaSides, sides_of
from two_sides import TestRun

from perflab.cli.attach import attached_environment

WHO = "SELECT DATABASE(), SUBSTRING_INDEX(CURRENT_USER(), '@', 1)"
ELSEWHERE = "this database is not one of the target's stores"
FROM_BEFORE = "this connection was opened for production before the marked request"
LOST = "OperationalError: (2013, 'perflab: this connection belonged to a load test; it was closed')"


def ask(connection: Any) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(WHO)
        return list(cursor.fetchone())


def connect_and_ask(login: dict[str, Any], mark: dict[str, Any] | None) -> Any:
    def connect() -> Any:
        with marked(mark), pymysql.connect(**login) as connection:
            return ask(connection)

    return attempt(connect)


def test_marked_work_connects_to_the_shadow(
    maria_service: Service, maria: MariaSides, maria_run: TestRun
) -> None:
    """The same login leads marked work to the shadow with its own, and everybody else to production."""
    shadow = [maria.shadow_database, maria.shadow_user]
    assert maria_service.call(connect_and_ask, maria.login, maria_run.mark()) == shadow
    assert maria_service.call(connect_and_ask, maria.login, None) == [maria.production_database, APP]


def connect_by(way: str, login: dict[str, Any], mark: dict[str, Any] | None, options: dict[str, Any]) -> Any:
    """Connect in one of PyMySQL's ways and ask who one is."""

    class Own(pymysql.connections.Connection):  # type: ignore[type-arg]
        """A class of the service's own."""

    def deferred(**given: Any) -> Any:
        connection = pymysql.connect(defer_connect=True, **given)
        connection.connect()
        return connection

    def pinged(**given: Any) -> Any:
        connection = pymysql.connect(defer_connect=True, **given)
        connection.ping(reconnect=True)
        return connection

    makers = {
        "connect": pymysql.connect, "Connect": pymysql.Connect, "Connection": pymysql.Connection,
        "own class": Own, "deferred": deferred, "pinged": pinged,
    }  # fmt: skip
    if "cursorclass" in options:
        options["cursorclass"] = getattr(pymysql.cursors, options["cursorclass"])

    def connect() -> Any:
        with warnings.catch_warnings(), marked(mark):
            warnings.simplefilter("ignore")
            with makers[way](**login, **options) as connection, connection.cursor() as cursor:
                cursor.execute(WHO)
                row = cursor.fetchone()
                cursor.execute("SELECT @perflab_test, @@autocommit, @@collation_connection")
                said = cursor.fetchone()
                one, other = (list(each.values() if isinstance(each, dict) else each) for each in (row, said))
                return [*one, *other, type(row).__name__]

    return attempt(connect)


def test_every_way_of_connecting(maria_service: Service, maria: MariaSides, maria_run: TestRun) -> None:
    """Aliases, classes of the service's own, a connection made now and opened later: all reach the shadow."""
    for way in ("connect", "Connect", "Connection", "own class", "deferred", "pinged"):
        for mark, who in (
            (maria_run.mark(), [maria.shadow_database, maria.shadow_user]),
            (None, [maria.production_database, APP]),
        ):
            said = maria_service.call(connect_by, way, maria.login, mark, {})
            assert said[:2] == who, (way, mark, said)


def test_however_the_database_is_named(
    maria_service: Service, maria: MariaSides, maria_run: TestRun, tmp_path: Path
) -> None:
    """Another name of the host, old parameters, an option file: the known store, and the shadow's login."""
    # Given
    login = maria.login
    option_file = tmp_path / "my.cnf"
    option_file.write_text(
        f"[client]\nhost=127.0.0.1\nport={maria.server.port}\nuser={APP}\npassword={PASSWORD}\n"
        f"database={maria.production_database}\n[away]\nhost=10.255.255.1\n"
    )
    old = {
        "host": "127.0.0.1",
        "port": login["port"],
        "user": APP,
        "passwd": PASSWORD,
        "db": login["database"],
    }
    ways: list[dict[str, Any]] = [
        {**login, "host": "localhost"},
        {**login, "user": "somebody", "password": "wrong"},
        {**login, "user": None},
        old,
        {"read_default_file": str(option_file)},
        {"read_default_file": str(option_file), "read_default_group": "client"},
        {**login, "read_default_file": str(option_file), "read_default_group": "away"},
    ]
    # Then
    for named in ways:
        said = maria_service.call(connect_by, "connect", named, maria_run.mark(), {})
        assert said[:2] == [maria.shadow_database, maria.shadow_user], (named, said)
    away = {**login, "host": None, "read_default_file": str(option_file), "read_default_group": "away"}
    assert is_refused(maria_service.call(connect_by, "connect", away, maria_run.mark(), {}), ELSEWHERE)


def test_what_is_no_login_stays(maria_service: Service, maria: MariaSides, maria_run: TestRun) -> None:
    """The first statement, autocommit, character set and class of cursor are the service's own choice."""
    options = {
        "init_command": "SET @perflab_test = 7",
        "autocommit": True,
        "charset": "latin1",
        "cursorclass": "DictCursor",
        "connect_timeout": 5,
        "program_name": "shop",
        "sql_mode": "ANSI",
        "ssl_disabled": True,
    }
    for mark in (maria_run.mark(), None):
        said = maria_service.call(connect_by, "connect", maria.login, mark, options)
        assert said[2:] == [7, 1, "latin1_swedish_ci", "dict"], said


def test_any_other_database_is_refused(maria_service: Service, maria: MariaSides, maria_run: TestRun) -> None:
    """Another database, none, another port or host, a socket: nothing is connected."""
    login = maria.login
    for named in (
        {**login, "database": "mysql"},
        {**login, "database": None},
        {**login, "port": 1},
        {**login, "host": "10.255.255.1"},
        {**login, "unix_socket": "/run/mysqld/mysqld.sock"},
        {},
    ):
        said = maria_service.call(connect_and_ask, named, maria_run.mark())
        assert is_refused(said, ELSEWHERE), (named, said)


def connect_over_own_socket(login: dict[str, Any], mark: dict[str, Any] | None) -> Any:
    import socket

    def connect() -> Any:
        own = socket.create_connection((login["host"], login["port"]))
        with own, marked(mark):
            connection = pymysql.connect(**login, defer_connect=True)
            connection.connect(own)
            return ask(connection)

    return attempt(connect)


def test_a_socket_of_the_service_s_own_is_refused(
    maria_service: Service, maria: MariaSides, maria_run: TestRun
) -> None:
    """Where it leads cannot be told; ordinary work goes on as ever."""
    said = maria_service.call(connect_over_own_socket, maria.login, maria_run.mark())
    assert is_refused(said, "where a socket of the service's own leads cannot be told")
    assert maria_service.call(connect_over_own_socket, maria.login, None) == [maria.production_database, APP]


def test_the_login_of_the_shadow_is_its_own(
    maria_service: Service, maria: MariaSides, maria_run: TestRun
) -> None:
    """Marked work that names the shadow database with another login gets the shadow's login."""
    admin, password = _admin(maria)
    login = {**maria.login, "database": maria.shadow_database, "user": admin, "password": password}
    assert maria_service.call(connect_and_ask, login, maria_run.mark()) == [
        maria.shadow_database,
        maria.shadow_user,
    ]
    # And: ordinary work may look at the shadow database as it always could
    assert maria_service.call(connect_and_ask, login, None) == [maria.shadow_database, admin]


def _admin(maria: MariaSides) -> tuple[str, str]:
    parts = urlsplit(maria.server.admin_url)
    return str(parts.username), str(parts.password)


def find_impostor(login: dict[str, Any], mark: dict[str, Any], really: dict[str, str]) -> Any:
    """Log in elsewhere after the agent decided, as a proxy might lead there."""

    class Impostor(pymysql.connections.Connection):  # type: ignore[type-arg]
        def _request_authentication(self) -> None:
            vars(self).update(really, password=really["password"].encode())
            super()._request_authentication()  # type: ignore[misc]

    def connect() -> Any:
        with marked(mark):
            return ask(Impostor(**login, init_command="INSERT INTO item (note) VALUES ('leaked')"))

    return attempt(connect)


def test_the_server_is_asked_who_it_is(maria_service: Service, maria: MariaSides, maria_run: TestRun) -> None:
    """A connection that ends up elsewhere is closed before even its first statement is sent."""
    admin, password = _admin(maria)
    for really in (
        {"user": APP, "password": PASSWORD, "db": maria.production_database},
        {"user": admin, "password": password, "db": maria.shadow_database},
    ):
        said = maria_service.call(find_impostor, maria.login, maria_run.mark(), really)
        assert is_refused(said, "what should be the shadow is"), said
    assert maria.notes("production") == []


def keep_connection(login: dict[str, Any], mark: dict[str, Any] | None, reading: bool = False) -> None:
    with marked(mark):
        connection = kept["connection"] = pymysql.connect(**login, local_infile=True)
        connection.cursor().execute("INSERT INTO item (note) VALUES ('from before'), ('and more')")
        if reading:
            kept["cursor"] = connection.cursor(pymysql.cursors.SSCursor)
            kept["cursor"].execute("SELECT note FROM item ORDER BY id")
            kept["first"] = kept["cursor"].fetchone()


def use_kept(mark: dict[str, Any] | None, file: str) -> dict[str, Any]:
    connection = kept["connection"]
    cursor = connection.cursor()
    streaming = connection.cursor(pymysql.cursors.SSCursor)
    insert = "INSERT INTO item (note) VALUES (%s)"
    forget()
    ways = {
        "execute": lambda: cursor.execute("INSERT INTO item (note) VALUES ('leaked')"),
        "executemany": lambda: cursor.executemany(insert, [["a"], ["b"]]),
        "callproc": lambda: cursor.callproc("add_item", ["leaked"]),
        "streaming": lambda: streaming.execute("SELECT 1"),
        "query": lambda: connection.query("DELETE FROM item"),
        "load": lambda: cursor.execute(f"LOAD DATA LOCAL INFILE '{file}' INTO TABLE item (note)"),
        "begin": connection.begin,
        "commit": connection.commit,
        "rollback": connection.rollback,
        "autocommit": lambda: connection.autocommit(True),
        "select_db": lambda: connection.select_db("mysql"),
        "ping": lambda: connection.ping(reconnect=False),
        "kill": lambda: connection.kill(1),
        "show_warnings": connection.show_warnings,
        "set_character_set": lambda: connection.set_character_set("utf8mb4"),
        "write_packet": lambda: connection.write_packet(b"\x03DELETE FROM item"),
        "connect": connection.connect,
        "close": connection.close,
    }
    with marked(mark), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said = {name: attempt(way) for name, way in ways.items()}
        return {**said, "ping(reconnect)": attempt(lambda: connection.ping(reconnect=True))}


def finish_kept() -> Any:
    connection = kept.pop("connection")
    still = bool(connection.server_status & 1)
    with contextlib.closing(connection):
        connection.commit()
    return still


def test_marked_work_cannot_use_a_connection_kept_from_before(
    maria_service: Service, maria: MariaSides, maria_run: TestRun, tmp_path: Path
) -> None:
    """Nothing is sent on it, it is not closed, and the transaction is still its owner's."""
    # Given
    (tmp_path / "rows").write_text("loaded\n")
    maria_service.call(keep_connection, maria.login, None)
    # When
    said = maria_service.call(use_kept, maria_run.mark(), str(tmp_path / "rows"))
    # Then: every way is refused, and no marked session was on production
    for way, answer in said.items():
        assert is_refused(answer, FROM_BEFORE), (way, answer)
    assert maria_service.call(noted, "session") == []
    assert len(maria_service.call(noted, "refuse")) >= len(said)
    # And: the real user's transaction is as it was, and can be committed
    assert maria_service.call(finish_kept) is True
    assert maria.notes("production") == ["and more", "from before"]


def read_on(mark: dict[str, Any] | None) -> list[Any]:
    with marked(mark):
        taken = [attempt(kept["cursor"].fetchone), attempt(kept["cursor"].nextset)]
    rest = kept["cursor"].fetchall()
    kept["connection"].rollback()
    kept["connection"].close()
    return [taken, rest]


def test_marked_work_takes_no_rows_of_a_real_user(
    maria_service: Service, maria: MariaSides, maria_run: TestRun
) -> None:
    """Of an answer that comes row by row the next row is its owner's."""
    maria_service.call(keep_connection, maria.login, None, True)
    taken, rest = maria_service.call(read_on, maria_run.mark())
    assert is_refused(taken[0], FROM_BEFORE)
    assert rest == [["and more"]]


def ordinary_finds_shadow(mark: dict[str, Any], then: str) -> list[Any]:
    connection = kept.pop("connection")
    cursor = connection.cursor()
    with marked(mark):
        cursor.execute("SET @mine = 1")  # which a connection made anew would not have
    forget()
    said = attempt(lambda: cursor.execute("INSERT INTO item (note) VALUES ('real user')"))
    after = attempt(connection.commit)
    aside = noted("step_aside")
    found: Any = None
    if then == "reconnect":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            connection.ping(reconnect=True)
        found = ask(connection)
        cursor.execute("INSERT INTO item (note) VALUES ('real user')")
        connection.commit()
        connection.close()
    return [said, after, connection.open, aside, found]


@pytest.mark.parametrize("then", ["", "reconnect"])
def test_ordinary_work_that_finds_a_shadow_connection_loses_it(
    then: str, maria_service: Service, maria: MariaSides, maria_run: TestRun
) -> None:
    """It is closed, as a lost connection is; connecting again leads where the service had made it lead."""
    # Given
    mark = maria_run.mark()
    maria_service.call(keep_connection, maria.login, mark)
    # When
    said, after, is_open, aside, found = maria_service.call(ordinary_finds_shadow, mark, then)
    # Then
    assert said == LOST
    assert after.startswith("InterfaceError")
    assert is_open is False
    assert aside == [["sql: ordinary work found a shadow connection; it was closed"]]
    assert maria.notes("shadow") == []
    if then:
        assert found == [maria.production_database, APP]
        assert maria.notes("production") == ["real user"]


def reconnect_kept(mark: dict[str, Any] | None, way: str) -> Any:
    connection = kept["connection"]
    if way == "closed":
        connection.close()

    def again() -> Any:
        with marked(mark), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            connection.ping(reconnect=True)
            return ask(connection)

    return attempt(again)


@pytest.mark.parametrize("way", ["closed", "killed"])
@pytest.mark.parametrize("side", ["production", "shadow"])
def test_a_connection_reconnects_to_its_own_side(
    way: str, side: str, maria_service: Service, maria: MariaSides, maria_run: TestRun
) -> None:
    """``ping(reconnect=True)`` after the server, or the service, ended the session."""
    # Given
    mark = maria_run.mark() if side == "shadow" else None
    maria_service.call(keep_connection, maria.login, mark)
    if way == "killed":
        _end_sessions(maria, maria.shadow_user if mark else APP)
    # Then
    database, user = (maria.shadow_database, maria.shadow_user) if mark else (maria.production_database, APP)
    assert maria_service.call(reconnect_kept, mark, way) == [database, user]
    assert maria_service.call(reconnect_kept, mark, "again") == [database, user]
    if side == "production":
        assert is_refused(maria_service.call(reconnect_kept, maria_run.mark(), way), FROM_BEFORE)


def _end_sessions(maria: MariaSides, user: str) -> None:
    for (number,) in maria.query(
        "production", f"SELECT id FROM information_schema.processlist WHERE user = '{user}'"
    ):
        with contextlib.suppress(pymysql.MySQLError):
            maria.query("production", f"KILL {number}")


def go_on_with_kept(login: dict[str, Any], mark: dict[str, Any]) -> dict[str, Any]:
    connection = kept["connection"]
    poll()
    with marked(mark):
        return {
            "execute": attempt(
                lambda: connection.cursor().execute("INSERT INTO item (note) VALUES ('late')")
            ),
            "commit": attempt(connection.commit),
            "connect": attempt(lambda: pymysql.connect(**login)),
            "rollback": attempt(connection.rollback),
            "close": attempt(connection.close),
        }


@pytest.mark.parametrize("how", ["killed", "expired"])
def test_a_run_that_is_over_ends_at_the_next_access(
    how: str, maria_service: Service, maria: MariaSides, maria_run: TestRun
) -> None:
    """Mid-transaction: statements, COMMIT, new connections are refused; rolling back and closing are not."""
    # Given
    maria_service.call(keep_connection, maria.login, maria_run.mark())
    other = maria.begin_run(lasts_s=-1)
    if how == "killed":
        maria_run.kill()
    # When
    said = maria_service.call(go_on_with_kept, maria.login, (maria_run if how == "killed" else other).mark())
    other.remove()
    # Then
    for way in ("execute", "commit", "connect"):
        assert is_refused(said[way], "the run is not live any more"), (way, said[way])
    assert said["rollback"] is None
    assert said["close"] is None
    assert maria.notes("shadow") == maria.notes("production") == []


def test_a_shadow_that_is_not_there_fails_only_marked_work(
    maria_service: Service, maria: MariaSides, maria_run: TestRun
) -> None:
    """A locked account is an error for marked work; production goes on, unchanged."""
    # Given
    maria.query("shadow", f"ALTER USER {maria.shadow_user}@'127.0.0.1' ACCOUNT LOCK")
    try:
        # When
        said = maria_service.call(connect_and_ask, maria.login, maria_run.mark())
        ordinary = maria_service.call(connect_and_ask, maria.login, None)
    finally:
        maria.query("shadow", f"ALTER USER {maria.shadow_user}@'127.0.0.1' ACCOUNT UNLOCK")
    # Then
    assert "account is locked" in said
    assert ordinary == [maria.production_database, APP]


def write_with_kept(login: dict[str, Any], mark: dict[str, Any]) -> str:
    with marked(mark):
        if "worker" not in kept:
            kept["worker"] = pymysql.connect(**login, autocommit=True)
        cursor = kept["worker"].cursor()
        return str(attempt(lambda: cursor.execute("INSERT INTO item (note) VALUES ('x')")))


def test_a_shadow_whose_rights_were_revoked_is_no_way_to_production(
    maria_service: Service, maria: MariaSides, maria_run: TestRun
) -> None:
    """Rights revoked, sessions ended half way: errors, and no row in production."""
    # Given
    assert maria_service.call(write_with_kept, maria.login, maria_run.mark()) == "1"
    grant = f"ON `{maria.shadow_database.replace('_', chr(92) + '_')}`.*"
    # When
    maria.query("shadow", f"REVOKE ALL {grant} FROM {maria.shadow_user}@'127.0.0.1'")
    try:
        denied = maria_service.call(connect_and_ask, maria.login, maria_run.mark())
    finally:
        maria.query("shadow", f"GRANT ALL {grant} TO {maria.shadow_user}@'127.0.0.1'")
    _end_sessions(maria, maria.shadow_user)
    lost = maria_service.call(write_with_kept, maria.login, maria_run.mark())
    # Then
    assert "Access denied" in denied
    assert lost.startswith("OperationalError")
    assert maria.notes("production") == []


def stand_in_for_mysqldb(login: dict[str, Any], mark: dict[str, Any]) -> Any:
    from perflab.shadow.scope import process

    pymysql.install_as_MySQLdb()
    import MySQLdb

    with marked(mark):
        connection = MySQLdb.connect(**login)
        who = ask(connection)
        connection.close()
    return [who, sorted(process.ledger.uncovered), process.ledger.hooks["pymysql"]["state"]]


def test_pymysql_may_stand_in_for_mysqldb(
    maria_service: Service, maria: MariaSides, maria_run: TestRun
) -> None:
    """``install_as_MySQLdb`` makes no hole: the driver of that name is the covered one."""
    who, uncovered, state = maria_service.call(stand_in_for_mysqldb, maria.login, maria_run.mark())
    assert who == [maria.shadow_database, maria.shadow_user]
    assert "MySQLdb" not in uncovered
    assert "pymysql" not in uncovered
    assert state == "on"


def test_servers_behind_sockets(maria: MariaSides, tmp_path: Path) -> None:
    """A store that is reached through a socket in the file system is told by the socket's path."""
    # Given
    server = maria.server
    path = str(server.directory / "data" / "s")
    for user, database in ((APP, SHOP), (ROLE, SHADOW)):
        maria.query("production", f"CREATE USER {user}@localhost IDENTIFIED BY '{PASSWORD}'")
        maria.query("production", f"GRANT ALL ON {database}.* TO {user}@localhost")
    sides = sides_of(
        server,
        tmp_path,
        f"mariadb:///{SHOP}?unix_socket={path}",
        f"mariadb://{ROLE}:{PASSWORD}@/{SHADOW}?unix_socket={path}",
        SHOP,
    )
    login = {"unix_socket": path, "user": APP, "password": PASSWORD, "database": SHOP}
    try:
        with sides.publisher, Service(attached_environment(sides.target, "sockets")) as service:
            run = sides.begin_run()
            # Then
            assert service.call(connect_and_ask, login, run.mark()) == [SHADOW, ROLE]
            assert service.call(connect_and_ask, login, None) == [SHOP, APP]
            assert is_refused(service.call(connect_and_ask, maria.login, run.mark()), ELSEWHERE)
    finally:
        maria.query("production", f"DROP USER {APP}@localhost, {ROLE}@localhost")
