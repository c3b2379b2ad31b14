"""What a MariaDB's own binlog says was changed in one database: the oracle of claims."""

from __future__ import annotations

from collections import Counter
from typing import Any

from mariadb_server import MariaServer
from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.event import MariadbGtidEvent
from pymysqlreplication.row_event import DeleteRowsEvent, UpdateRowsEvent, WriteRowsEvent

_OPERATIONS = {WriteRowsEvent: "insert", UpdateRowsEvent: "update", DeleteRowsEvent: "delete"}


def position(server: MariaServer) -> tuple[str, int]:
    """Return where the binlog ends now."""
    with server.connect() as session, session.cursor() as cursor:
        cursor.execute("SHOW MASTER STATUS")
        file, at, *_ = cursor.fetchone()
    return str(file), int(at)


def changes(server: MariaServer, since: tuple[str, int], database: str) -> list[list[list[Any]]]:
    """Return per transaction, in order, the rows by table and operation, as claims write them."""
    login = dict(
        zip(("user", "password"), server.admin_url[len("mariadb://") :].split("@")[0].split(":"), strict=True)
    )
    found: list[Counter[tuple[str, str]]] = []
    reader = BinLogStreamReader(
        connection_settings={"host": server.host, "port": server.port, **login},
        server_id=4711,
        log_file=since[0],
        log_pos=since[1],
        resume_stream=True,
        only_events=[MariadbGtidEvent, *_OPERATIONS],
    )
    try:
        for event in reader:
            if (reader.log_file, reader.log_pos) <= since:
                continue
            if isinstance(event, MariadbGtidEvent):
                found.append(Counter())
            elif event.schema == database:
                found[-1][event.table, _OPERATIONS[type(event)]] += len(event.rows)
    finally:
        reader.close()
    return [[[*key, rows] for key, rows in sorted(counted.items())] for counted in found if counted]
