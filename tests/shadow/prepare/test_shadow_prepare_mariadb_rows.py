"""Rows copied into a MariaDB shadow, masked, and ids set apart."""

from __future__ import annotations

from collections.abc import Iterator

import pymysql
import pytest
from maria_shop import PASSWORD, PRODUCTION, SHADOW, USER, ask, enter, server_with_a_shop
from mariadb_server import MariaServer

from perflab.errors import ShadowError
from perflab.shadow.prepare.mariadb import PreparedMariadb, drop_mariadb, prepare_mariadb
from perflab.shadow.prepare.mariadb_rows import Column, masked

EMAIL = Column("user", "email", "varchar", 30, False)
AGE = Column("user", "age", "int", 0, True)


@pytest.fixture(scope="module")
def shop(mariadb: MariaServer) -> Iterator[MariaServer]:
    with server_with_a_shop(mariadb) as server:
        yield server


def prepare(server: MariaServer, **options: object) -> PreparedMariadb:
    return prepare_mariadb(server.admin_url, PRODUCTION, SHADOW, USER, PASSWORD, **options)  # type: ignore[arg-type]


def test_rows_are_copied_as_they_are(shop: MariaServer) -> None:
    """Text, bytes, JSON, percent signs, partitions, odd names; generated columns make themselves."""
    # When
    made = prepare(shop, rows=1000)
    try:
        # Then
        assert made.rows == {"line": 3, "odd `name%": 1, "orders": 3, "parts": 2, "small": 2}
        with enter(shop, SHADOW) as shadow, shop.connect(PRODUCTION) as production:
            for table in ("orders", "small", "parts", "`odd ``name%`", "line"):
                query = f"SELECT * FROM {table} ORDER BY 1"
                assert ask(shadow, query) == ask(production, query)
            assert ask(shadow, "SELECT count(*) FROM log") == [(0,)]
    finally:
        drop_mariadb(shop.admin_url, SHADOW, USER)


def test_a_sample_refers_to_nothing_that_is_not_there(shop: MariaServer) -> None:
    """Of rows that refer to others those are kept whose others were copied."""
    made = prepare(shop, rows=2)
    try:
        with enter(shop, SHADOW) as shadow:
            assert ask(shadow, "SELECT id FROM orders ORDER BY 1") == [(1,), (2,)]
            assert ask(shadow, "SELECT order_id FROM line") == [(1,)]
        assert (made.rows["orders"], made.rows["line"]) == (2, 1)
    finally:
        drop_mariadb(shop.admin_url, SHADOW, USER)


def test_masked_values_are_not_in_the_shadow(shop: MariaServer) -> None:
    """A hash is salted, fits its column, and keeps equal values equal; production stays as it is."""
    masks = {"small.email": "hash", "small.phone": "null", "orders.note": "fixed:it's \\ masked"}
    prepare(shop, rows=10, masks=masks)
    try:
        with enter(shop, SHADOW) as shadow:
            emails = [email for (email,) in ask(shadow, "SELECT email FROM small")]
            assert {len(email) for email in emails} == {30}
            assert len(set(emails)) == 2
            assert ask(shadow, "SELECT DISTINCT phone FROM small") == [(None,)]
            assert ask(shadow, "SELECT DISTINCT note FROM orders") == [("it's \\ masked",)]
    finally:
        drop_mariadb(shop.admin_url, SHADOW, USER)
    with shop.connect(PRODUCTION) as production:
        assert ask(production, "SELECT phone FROM small WHERE id = 1") == [("1",)]


def test_ids_are_set_apart(shop: MariaServer) -> None:
    """By a thousand million, or half way to the end of a small type; sequences keep their step."""
    made = prepare(shop)
    try:
        assert made.counters == 5
        with enter(shop, SHADOW) as shadow:
            ask(shadow, "INSERT INTO orders (total) VALUES (1)")
            ask(shadow, "INSERT INTO small (email) VALUES ('x')")
            ((order, number),) = ask(shadow, "SELECT id, number FROM orders")
            assert order == 1_000_000_004
            assert number > 1_000_000_000
            assert number % 5 == 0
            assert ask(shadow, "SELECT id FROM small") == [(3 + (127 - 3) // 2,)]
            ((down,),) = ask(shadow, "SELECT NEXTVAL(down)")
            assert down == -500
    finally:
        drop_mariadb(shop.admin_url, SHADOW, USER)


def test_a_mask_that_does_not_fit_is_an_error(shop: MariaServer) -> None:
    """A slip of the pen lets no value through: the login stays locked, and the next attempt is whole."""
    with pytest.raises(ShadowError, match=r"mask 'small.emial' names no column"):
        prepare(shop, rows=10, masks={"small.emial": "hash"})
    with pytest.raises(pymysql.OperationalError, match="account is locked"):
        enter(shop, SHADOW)
    made = prepare(shop, rows=10, masks={"small.email": "hash"})
    assert (made.created, made.rows["small"]) == (True, 2)
    drop_mariadb(shop.admin_url, SHADOW, USER)


@pytest.mark.parametrize(
    ("column", "mask", "expected"),
    [
        (EMAIL, "fixed:it's", "'it''s'"),
        (EMAIL, "fixed:", "''"),
        (EMAIL, "hash", "LEFT(SHA2(CONCAT('salt', `email`), 256), 30)"),
        (AGE, "null", "NULL"),
        (AGE, "fixed:7", "'7'"),
    ],
)
def test_masks(column: Column, mask: str, expected: str) -> None:
    """What is copied instead of a value."""
    assert masked([column], {f"user.{column.name}": mask}, "salt") == {column: expected}


@pytest.mark.parametrize(("column", "mask"), [(EMAIL, "null"), (AGE, "hash"), (EMAIL, "shuffle")])
def test_masks_that_do_not_fit(column: Column, mask: str) -> None:
    """NULL where there may be none, a hash of a number, a word nobody knows."""
    with pytest.raises(ShadowError, match="does not fit"):
        masked([column], {f"user.{column.name}": mask}, "salt")
