"""The audit of MariaDB and the claims of a really attached service: together they leave nothing over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pymysql
from attached_service import Service, forget, noted
from audited_system import RUN
from maria_sides import MariaSides
from msgspec.structs import replace
from two_sides import TestRun

from perflab.config import Secret
from perflab.shadow.audit import Audit


def work(login: dict[str, Any]) -> list[Any]:
    """Write in many ways, as an ordinary user's request does; return what was claimed."""
    forget()
    insert = "INSERT INTO item (note) VALUES (%s)"
    with pymysql.connect(**login, client_flag=pymysql.constants.CLIENT.FOUND_ROWS) as connection:
        cursor = connection.cursor()
        for number in range(20):
            cursor.execute(insert, [f"n{number}"])
            cursor.execute("UPDATE item SET note = 'same' WHERE id > 0")
            connection.commit()
        cursor.execute(insert, ["undone"])
        connection.rollback()
        cursor.executemany(insert, [["a"], ["b"]])
        cursor.execute("REPLACE INTO stock VALUES (1, 4)")
        connection.commit()
        cursor.execute("INSERT INTO stock VALUES (1, 5) ON DUPLICATE KEY UPDATE amount = 5")
        connection.commit()
        cursor.callproc("add_item", ["by a procedure"])
        connection.commit()
        cursor.execute("SELECT NEXTVAL(numbers)")
        cursor.execute("CREATE TEMPORARY TABLE scratch (id int)")
        cursor.execute("INSERT INTO scratch VALUES (1)")
        cursor.execute("TRUNCATE stock")
        cursor.execute("CREATE OR REPLACE TABLE made SELECT seq FROM seq_1_to_3")
        cursor.execute("DROP TABLE made")
        connection.autocommit(True)
        cursor.execute("DELETE FROM item")
    return noted("claim")


def test_every_way_of_writing_is_accounted_for(
    maria_service: Service, maria: MariaSides, maria_run: TestRun, secret: Callable[[str], Secret]
) -> None:
    """No transaction of an attached service is left over; most are known by what they changed."""
    # Given
    store = replace(maria.target.stores[0], audit=secret(maria.server.admin_url))
    with Audit([store], RUN) as audit:
        audit.start()

        # When
        claimed = maria_service.call(work, maria.login)
        audit.poll()
        names = ("store", "fingerprint", "begin_ns", "end_ns")
        claims = [dict(zip(names, each, strict=True)) for each in claimed]
        sessions = [{"store": store.name, "shadow": True, "marked_calls": 1}]
        proof = audit.finish(claims, sessions, 1)

    # Then
    (row,) = proof["stores"]
    assert row["changes"]["examples"] == []
    assert row["changes"]["unattributed"] == 0
    assert row["changes"]["attributed"] >= 20
    assert row["proven"], (row["reasons"], row["not_checked"])
