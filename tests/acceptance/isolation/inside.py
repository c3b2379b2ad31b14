"""What the tests of faults have an attached process do."""

from __future__ import annotations

from typing import Any

from attached_service import kept, marked


def begin_and_keep(url: str, mark: dict[str, Any]) -> int:
    """Begin a marked transaction and keep it open."""
    import psycopg

    with marked(mark):
        connection = kept["open"] = psycopg.connect(url)
        connection.execute("INSERT INTO item (note) VALUES ('marked, open')")
    return int(connection.info.backend_pid)


def begin_and_keep_mariadb(login: dict[str, Any], mark: dict[str, Any]) -> int:
    """Begin a marked transaction on MariaDB and keep it open."""
    import pymysql

    place = {name: login[name] for name in ("host", "port", "user", "password", "database")}
    with marked(mark):
        connection = kept["open"] = pymysql.connect(**place)
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO item (note) VALUES ('marked, open')")
    return int(connection.thread_id())


def go_on_mariadb(mark: dict[str, Any]) -> str:
    """Write once more in the transaction that was kept, and commit."""
    with marked(mark):
        connection = kept.pop("open")
        try:
            with connection.cursor() as cursor:
                cursor.execute("INSERT INTO item (note) VALUES ('marked, later')")
            connection.commit()
        except Exception as error:
            return type(error).__name__
        finally:
            if connection.open:
                connection.close()
    return "done"


def go_on(mark: dict[str, Any]) -> str:
    """Write once more in the transaction that was kept, and commit."""
    with marked(mark):
        try:
            kept["open"].execute("INSERT INTO item (note) VALUES ('marked, later')")
            kept["open"].commit()
        except Exception as error:
            return type(error).__name__
        finally:
            kept.pop("open").close()
    return "done"


def break_decision(name: str) -> None:
    """Have a decision of the agent fail with an error of its own."""
    from perflab.shadow.sql import session

    kept["whole"] = (name, getattr(session, name))

    def broken(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError(f"{name} is broken on purpose")

    setattr(session, name, broken)


def mend_decision() -> None:
    from perflab.shadow.sql import session

    setattr(session, *kept.pop("whole"))
