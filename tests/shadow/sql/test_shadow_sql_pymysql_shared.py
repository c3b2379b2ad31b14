"""What marked work must not reach from its shadow on production's own MariaDB server, tried one by one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest
from attached_service import Service, attempt, is_refused, kept, marked
from maria_sides import SHOP, MariaSides, make_sides
from mariadb_server import MariaServer
from two_sides import TestRun

from perflab.cli.attach import attached_environment

DENIED = {1044, 1045, 1142, 1143, 1227, 1370, 1095, 1094, 1410, 1290, 1419}
BY_THE_SERVER = {
    "another database": [f"USE {SHOP}"],
    "a qualified name": [f"SELECT * FROM {SHOP}.item"],
    "a qualified write": [f"INSERT INTO {SHOP}.item (note) VALUES ('leaked')"],
    "many tables": [f"UPDATE item, {SHOP}.item AS theirs SET theirs.note = 'leaked'"],
    "a view": [f"CREATE OR REPLACE VIEW peek AS SELECT * FROM {SHOP}.item"],
    "a procedure": [f"CALL {SHOP}.add_item('leaked')"],
    "a function": [f"SELECT {SHOP}.noted('leaked')"],
    "a sequence": [f"SELECT NEXTVAL({SHOP}.numbers)"],
    "a trigger": ["CREATE TRIGGER t BEFORE INSERT ON stock FOR EACH ROW SET NEW.amount = 1"],
    "a prepared text": [f"PREPARE s FROM 'DELETE FROM {SHOP}.item'"],
    "a text at once": [f"EXECUTE IMMEDIATE 'DELETE FROM {SHOP}.item'"],
    "a foreign key": [
        f"CREATE OR REPLACE TABLE k (id int, FOREIGN KEY (id) REFERENCES {SHOP}.parent (id)) ENGINE=InnoDB"
    ],
    "a copy": [f"CREATE OR REPLACE TABLE copied LIKE {SHOP}.item"],
    "a renaming": [f"RENAME TABLE item TO {SHOP}.item2"],
    "a lock": [f"LOCK TABLES {SHOP}.item WRITE"],
    "another definer": ["CREATE OR REPLACE DEFINER = maria_app@'127.0.0.1' VIEW v AS SELECT 1"],
    "a global setting": ["SET GLOBAL max_connections = 3"],
    "a new user": ["CREATE USER leaked@localhost"],
    "a grant": [f"GRANT ALL ON {SHOP}.* TO maria_role@'127.0.0.1'"],
    "a flush": ["FLUSH TABLES WITH READ LOCK"],
    "a file to write": ["SELECT 1 INTO OUTFILE '/tmp/perflab-leaked'"],
    "a file to read": ["LOAD DATA INFILE '/etc/passwd' INTO TABLE item (note)"],
    "the binlog": ["SET SESSION sql_log_bin = 0"],
    "replication": ["STOP SLAVE"],
    "a server to reach": ["CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (HOST '127.0.0.1')"],
    "a plugin": ["INSTALL SONAME 'ha_federatedx'"],
    "an event elsewhere": [f"CREATE EVENT {SHOP}.e ON SCHEDULE EVERY 1 DAY DO DELETE FROM item"],
}  # fmt: skip


def send(login: dict[str, Any], mark: dict[str, Any] | None, texts: list[str]) -> Any:
    """Send statements one after the other; return the last one's error, its code first."""
    said: Any = None
    with marked(mark), pymysql.connect(**login, autocommit=True) as connection, connection.cursor() as cursor:
        for text in texts:
            try:
                cursor.execute(text)
                said = cursor.fetchall()
            except pymysql.MySQLError as error:
                said = list(error.args)
            except Exception as error:
                said = f"{type(error).__name__}: {error}"
    return said


@pytest.mark.parametrize("what", BY_THE_SERVER)
def test_the_server_refuses_the_shadow_s_login(
    what: str, maria_service: Service, maria: MariaSides, maria_run: TestRun
) -> None:
    """Whatever the text says, the login of the shadow has no rights outside its database."""
    said = maria_service.call(send, maria.login, maria_run.mark(), BY_THE_SERVER[what])
    assert said[0] in DENIED, said
    assert maria.notes("production") == []


def test_a_routine_of_the_shadow_has_the_shadow_s_rights(
    maria_service: Service, maria: MariaSides, maria_run: TestRun
) -> None:
    """A trigger and a procedure that name production write nothing there: their definer may not."""
    # Given
    definer = f"DEFINER = {maria.shadow_user}@'127.0.0.1'"
    body = f"INSERT INTO {SHOP}.item (note) VALUES ('leaked')"
    maria.query("shadow", f"CREATE {definer} TRIGGER t BEFORE INSERT ON stock FOR EACH ROW {body}")
    maria.query("shadow", f"CREATE {definer} PROCEDURE p() SQL SECURITY DEFINER {body}")
    try:
        # When
        said = [
            maria_service.call(send, maria.login, maria_run.mark(), [text])
            for text in ("INSERT INTO stock VALUES (7, 1)", "CALL p()")
        ]
    finally:
        maria.query("shadow", "DROP TRIGGER t")
        maria.query("shadow", "DROP PROCEDURE p")
    # Then
    assert [error[0] for error in said] == [1142, 1142]
    assert maria.notes("production") == []


def end_another(login: dict[str, Any], mark: dict[str, Any]) -> Any:
    kept["user"] = pymysql.connect(**login)
    number = kept["user"].thread_id()
    with marked(mark):
        connection = pymysql.connect(**login)
        own = pymysql.connect(**login)
        said = [attempt(lambda: connection.kill(number)), attempt(lambda: connection.kill(own.thread_id()))]
        seen = connection.cursor()
        seen.execute("SELECT DISTINCT user FROM information_schema.processlist")
        users = [user for (user,) in seen.fetchall()]
    alive = attempt(kept.pop("user").ping)
    return [said, users, alive]


def test_marked_work_ends_no_session_but_its_own(
    maria_service: Service, maria: MariaSides, maria_run: TestRun
) -> None:
    """KILL of a real user's session is refused by the server, and such sessions are not even seen."""
    said, users, alive = maria_service.call(end_another, maria.login, maria_run.mark())
    assert "1095" in said[0]
    assert said[1] is None
    assert users == [maria.shadow_user]
    assert alive is None


def stay_inside(login: dict[str, Any], mark: dict[str, Any] | None, file: str) -> list[Any]:
    """Do what belongs to the database, or to the session: marked work may, on its own side."""
    seen: list[Any] = []
    with marked(mark), pymysql.connect(**login, local_infile=True, autocommit=True) as connection:
        cursor = connection.cursor()
        for text in (
            f"LOAD DATA LOCAL INFILE '{file}' INTO TABLE item (note)",
            "CREATE TEMPORARY TABLE scratch (id int)",
            "INSERT INTO scratch VALUES (1)",
            "LOCK TABLES item WRITE",
            "INSERT INTO item (note) VALUES ('locked')",
            "UNLOCK TABLES",
            "XA START 'branch'",
            "INSERT INTO item (note) VALUES ('xa')",
            "XA END 'branch'",
            "XA PREPARE 'branch'",
            "XA COMMIT 'branch'",
            "SELECT NEXTVAL(numbers) > 0",
            "PREPARE s FROM 'INSERT INTO item (note) VALUES (?)'",
            "SET @a = 'prepared'",
            "EXECUTE s USING @a",
            "CREATE OR REPLACE TABLE made (id int)",
            "DROP TABLE made",
            "CREATE OR REPLACE EVENT e ON SCHEDULE EVERY 1 DAY DISABLE DO DELETE FROM item",
            "DROP EVENT e",
            "CALL add_item('called')",
            "SET SESSION sql_mode = ''",
        ):
            seen.append(attempt(lambda text=text: cursor.execute(text)))
    return seen


def test_what_belongs_to_a_database_works_on_the_shadow(
    maria_service: Service, maria: MariaSides, maria_run: TestRun, tmp_path: Path
) -> None:
    """LOAD DATA LOCAL, temporary tables, LOCK TABLES, XA, sequences, PREPARE, DDL, events, procedures."""
    (tmp_path / "rows").write_text("loaded\n")
    seen = maria_service.call(stay_inside, maria.login, maria_run.mark(), str(tmp_path / "rows"))
    assert [each for each in seen if not isinstance(each, int)] == []
    assert maria.notes("shadow") == ["called", "loaded", "locked", "prepared", "xa"]
    assert maria.notes("production") == []


LOCKING = (
    ["SELECT GET_LOCK('cron', 0)"],
    ["SELECT get_lock /* a comment */ ('cron', 0)"],
    ["DO RELEASE_LOCK('cron')"],
    ["SELECT IS_USED_LOCK('cron')"],
    ["SELECT IS_FREE_LOCK('cron')"],
    ["SELECT RELEASE_ALL_LOCKS()"],
    ["SET @a = (SELECT GET_LOCK('cron', 0))"],
    ["PREPARE s FROM \"SELECT GET_LOCK('cron', 0)\""],
    ["EXECUTE IMMEDIATE 'SELECT GET_LOCK(''cron'', 0)'"],
    ["CREATE FUNCTION f() RETURNS int RETURN GET_LOCK('cron', 0)"],
    ["INSERT INTO item (note) VALUES (get_lock('cron', 0))"],
)


@pytest.mark.parametrize("texts", LOCKING, ids=range(len(LOCKING)))
def test_user_locks_are_refused_where_both_sides_share_a_server(
    texts: list[str], maria_service: Service, maria: MariaSides, maria_run: TestRun
) -> None:
    """A lock of a marked request would hold up real users: such locks are the server's."""
    said = maria_service.call(send, maria.login, maria_run.mark(), texts)
    assert is_refused(said, "user locks are shared by all databases of a server"), said


def test_a_word_in_a_value_is_no_lock(maria_service: Service, maria: MariaSides, maria_run: TestRun) -> None:
    """A note that speaks of locks is a note; ordinary work may lock as ever."""
    note = "INSERT INTO item (note) VALUES ('SELECT get_lock(1, 2) engine=spider')"
    assert maria_service.call(send, maria.login, maria_run.mark(), [note]) == []
    assert maria_service.call(send, maria.login, None, ["SELECT GET_LOCK('cron', 0)"]) == [[1]]


@pytest.mark.parametrize("engine", ["FEDERATED", "CONNECT", "SPIDER", "`S3`"])
def test_tables_that_reach_other_servers_are_refused(
    engine: str, maria_service: Service, maria: MariaSides, maria_run: TestRun
) -> None:
    """Such a table may stand for one of production, with a login of its own."""
    text = f"CREATE TABLE far (id int) ENGINE={engine} CONNECTION='production/item'"
    said = maria_service.call(send, maria.login, maria_run.mark(), [text])
    assert is_refused(said, "may reach any server")


@pytest.fixture(scope="module")
def apart(
    mariadb: MariaServer, server_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """Make a shadow on a server of its own, and a service attached to it."""
    with MariaServer(server_directory / "mariadb_apart", settings={"log-bin": None}) as other:
        sides = make_sides(mariadb, tmp_path_factory.mktemp("apart"), other, shop="maria_apart")
        with sides.publisher, Service(attached_environment(sides.target, "apart")) as service:
            yield sides, service


def test_user_locks_are_fine_on_a_server_of_the_shadow_s_own(apart: Any) -> None:
    """There nobody else can be held up."""
    sides, service = apart
    run = sides.begin_run()
    texts = ["SELECT GET_LOCK('cron', 0), DATABASE()"]
    assert service.call(send, sides.login, run.mark(), texts) == [[1, sides.shadow_database]]
    assert service.call(send, sides.login, None, ["SELECT DATABASE()"]) == [["maria_apart"]]
    run.remove()
