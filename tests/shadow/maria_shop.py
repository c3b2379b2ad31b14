"""A MariaDB database with everything that is copied into a shadow, and what must not be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pymysql
from mariadb_server import MariaServer

PRODUCTION, SHADOW, USER, PASSWORD = "prep_shop", "prep_shop_shadow", "prep_shadow", "a pass:wörd@/?'"
_SCHEMA = """
CREATE DATABASE prep_shop CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
CREATE DATABASE prep_other;
CREATE TABLE prep_other.theirs (id int PRIMARY KEY);
CREATE USER prep_app@'%' IDENTIFIED BY 'app';
GRANT ALL ON prep_shop.* TO prep_app@'%';
USE prep_shop;
CREATE SEQUENCE numbers START WITH 5 INCREMENT BY 5;
CREATE SEQUENCE down START WITH -1 INCREMENT BY -1 MINVALUE -1000 MAXVALUE 0;
CREATE TABLE orders (
    id bigint unsigned AUTO_INCREMENT PRIMARY KEY, total decimal(9, 2) CHECK (total >= 0),
    number bigint DEFAULT NEXTVAL(prep_shop.numbers), note varchar(40) COMMENT 'see prep_shop.orders',
    twice decimal(9, 2) AS (total * 2) STORED, data json, raw varbinary(20),
    at datetime(3) DEFAULT CURRENT_TIMESTAMP(3));
CREATE TABLE small (id tinyint AUTO_INCREMENT PRIMARY KEY, email varchar(30) NOT NULL UNIQUE, phone
    varchar(20));
CREATE TABLE line (id int AUTO_INCREMENT PRIMARY KEY, order_id bigint unsigned NOT NULL, other int,
    CONSTRAINT of_order FOREIGN KEY (order_id) REFERENCES orders (id) ON DELETE CASCADE, CONSTRAINT
    of_theirs FOREIGN KEY (other) REFERENCES prep_other.theirs (id), KEY (other));
CREATE TABLE parts (id int, k int) PARTITION BY LIST (k) (PARTITION one VALUES IN (1), PARTITION two
    VALUES IN (2));
CREATE TABLE versioned (id int) WITH SYSTEM VERSIONING;
CREATE TABLE `odd ``name%` (`a ``b%` int PRIMARY KEY, `select` text);
CREATE DEFINER = prep_app@'%' SQL SECURITY DEFINER VIEW totals AS SELECT sum(total) AS total FROM
    prep_shop.orders;
CREATE DEFINER = prep_app@'%' VIEW aa_second AS SELECT * FROM totals;
CREATE VIEW across AS SELECT o.id FROM orders o JOIN prep_other.theirs t ON t.id = o.id;
CREATE TABLE gone (id int);
CREATE VIEW broken AS SELECT * FROM gone;
DROP TABLE gone;
CREATE VIEW locking AS SELECT GET_LOCK('x', 0);
CREATE DEFINER = prep_app@'%' FUNCTION doubled(n int) RETURNS int DETERMINISTIC RETURN n * 2;
CREATE DEFINER = prep_app@'%' PROCEDURE add_order(amount decimal(9, 2)) SQL SECURITY DEFINER INSERT
    INTO prep_shop.orders (total, note) VALUES (amount, CURRENT_USER());
CREATE PROCEDURE alone() SELECT get_lock('cron', 0);
CREATE DEFINER = prep_app@'%' PROCEDURE reaching() SQL SECURITY DEFINER INSERT INTO
    prep_other.theirs VALUES (7);
CREATE TABLE log (line text, who varchar(100));
CREATE DEFINER = prep_app@'%' TRIGGER noted AFTER INSERT ON orders FOR EACH ROW INSERT INTO
    prep_shop.log VALUES (CONCAT('order ', NEW.id), CURRENT_USER());
CREATE DEFINER = prep_app@'%' EVENT tidy ON SCHEDULE EVERY 1 SECOND ENABLE DO DELETE FROM
    prep_shop.log;
INSERT INTO orders (total, note, data, raw) VALUES (1, 'it''s 100%', '{"a": [1]}', x'00ff'), (2,
    'ünï', NULL, NULL), (3, NULL, NULL, NULL);
INSERT INTO small (email, phone) VALUES ('ann@example.org', '1'), ('bob@example.org', NULL);
INSERT INTO line (order_id) VALUES (3), (1), (2);
INSERT INTO parts VALUES (1, 1), (2, 2);
INSERT INTO `odd ``name%` VALUES (1, 'x');
DELETE FROM log;
"""


@contextmanager
def server_with_a_shop(server: MariaServer) -> Iterator[MariaServer]:
    """Make it on a server, and take it away again."""
    with server.connect() as session, session.cursor() as cursor:
        cursor.execute("SET GLOBAL event_scheduler = OFF")
        for statement in _SCHEMA.strip().removesuffix(";").split(";\n"):
            cursor.execute(statement)
        yield server
        for database in (PRODUCTION, "prep_other"):
            cursor.execute(f"DROP DATABASE {database}")
        cursor.execute("DROP USER prep_app")


def enter(server: MariaServer, database: str, password: str = PASSWORD) -> pymysql.Connection[Any]:
    """Open a session of the shadow login."""
    return pymysql.connect(
        host=server.host, port=server.port, user=USER, password=password.encode().decode("latin1"),
        database=database, autocommit=True,
    )  # fmt: skip


def ask(session: pymysql.Connection[Any], statement: str) -> list[tuple[Any, ...]]:
    """Return the rows of a statement."""
    with session.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def shape(server: MariaServer) -> object:
    """Everybody's rights, all databases and production's tables: what preparing must leave as it was."""
    with server.connect() as session:
        grants = [
            ask(session, f"SHOW GRANTS FOR {session.escape(user)}@{session.escape(host)}")
            for user, host in ask(
                session,
                "SELECT user, host FROM mysql.user WHERE is_role = 'N'"
                " AND host IN ('%', '127.0.0.1') ORDER BY 1, 2",
            )
        ]
        tables = ask(session, "SELECT table_name, table_rows, auto_increment FROM information_schema.tables"
                     f" WHERE table_schema = '{PRODUCTION}' ORDER BY 1")  # fmt: skip
        return [grants, ask(session, "SHOW DATABASES"), tables]
