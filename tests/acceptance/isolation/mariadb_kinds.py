"""What random work does on MariaDB: each kind's statements."""

from __future__ import annotations

Steps = tuple[tuple[str, str], ...]

FOREIGN = "soak_shop"


def _do(*texts: str) -> Steps:
    return tuple(("do", text) for text in texts)


ROWS: dict[str, Steps] = {
    "insert": _do("INSERT INTO item (note) VALUES ('{side} {n}')"),
    "insert set": _do("INSERT INTO item SET note = '{side} {n}'"),
    "insert rows": _do("INSERT INTO item (note) VALUES ('{side} {n}'), ('{side} {n}b'), ('{side} {n}c')"),
    "insert many": (("many", "INSERT INTO item (note) VALUES (%s)\n{side} {n}"),),
    "insert select": _do("INSERT INTO item (note) SELECT CONCAT('{side} {n} ', id) FROM stock LIMIT 3"),
    "insert ignore": _do("INSERT IGNORE INTO stock VALUES ({n} MOD 50, 1)"),
    "insert returning": _do("INSERT INTO item (note) VALUES ('{side} {n}') RETURNING id"),
    "insert in one's own database": _do("INSERT INTO {database}.item (note) VALUES ('{side} {n}')"),
    "upsert": _do("INSERT INTO stock VALUES ({n} MOD 50, 1) ON DUPLICATE KEY UPDATE amount = amount + 1"),
    "replace": _do("REPLACE INTO stock VALUES ({n} MOD 50, 3)"),
    "update": _do("UPDATE stock SET amount = amount + 1 WHERE id = {n} MOD 50"),
    "update of two tables": _do(
        "UPDATE item JOIN stock ON stock.id = item.id MOD 50 SET item.note = '{side} {n}', stock.amount = 5"
        " WHERE stock.id = {n} MOD 50"
    ),
    "delete": _do("DELETE FROM item WHERE id MOD 7 = {n} MOD 7"),
    "delete from two tables": _do(
        "DELETE item, stock FROM item JOIN stock ON stock.id = item.id MOD 50 WHERE stock.id = {n} MOD 50"
    ),
    "delete returning": _do("DELETE FROM stock WHERE id = {n} MOD 50 RETURNING amount"),
    "select": _do("SELECT count(*) FROM item"),
    "select for update": _do("SELECT amount FROM stock WHERE id = {n} MOD 50 FOR UPDATE"),
    "select into variable": _do("SELECT count(*) INTO @n FROM stock", "SELECT @n"),
    "with": _do("WITH few AS (SELECT id FROM stock LIMIT 2) SELECT count(*) FROM few JOIN item"),
    "load data": (("do", "LOAD DATA LOCAL INFILE '{file}' INTO TABLE item (note)"),),
    "load data of two columns": (
        ("do", "LOAD DATA LOCAL INFILE '{file}' IGNORE INTO TABLE parts (note) SET k = 1"),
    ),
    "executed comment": _do("/*!50000 INSERT */ INTO /*M!100000 item */ (note) VALUES ('{side} {n}')"),
    "set statement": _do("SET STATEMENT max_statement_time = 9 FOR INSERT INTO item SET note = '{side} {n}'"),
    "procedure": _do("CALL put_item('{side} {n}')"),
    "procedure of its definer": _do("CALL put_item_as_owner('{side} {n}')"),
    "function": _do("SELECT add_item('{side} {n}')"),
    "block": _do("BEGIN NOT ATOMIC DECLARE t text; SET t = '{side} {n}'; CALL put_item(t); END"),
    "trigger": _do("INSERT INTO watched VALUES ('{side} {n}')"),
    "view": _do("INSERT INTO items (note) VALUES ('{side} {n}')"),
    "partition": _do("INSERT INTO parts VALUES ({n} MOD 2 + 1, '{side} {n}')"),
    "prepared statement": _do(
        "PREPARE put FROM 'INSERT INTO item (note) VALUES (?)'",
        "SET @text = '{side} {n}'",
        "EXECUTE put USING @text",
        "DEALLOCATE PREPARE put",
    ),
    "text at once": _do("EXECUTE IMMEDIATE CONCAT('INSERT INTO ', 'item SET note = ?') USING '{side} {n}'"),
    "server cursor": (("walk", "SELECT id, note FROM item ORDER BY id"),),
    "savepoint": _do(
        "SAVEPOINT inner_one",
        "INSERT INTO item (note) VALUES ('{side} {n}')",
        "ROLLBACK TO SAVEPOINT inner_one",
        "RELEASE SAVEPOINT inner_one",
    ),
    "handler": _do("HANDLER stock OPEN AS walk", "HANDLER walk READ FIRST LIMIT 2", "HANDLER walk CLOSE"),
    "session setting": _do("SET SESSION sql_mode = 'STRICT_ALL_TABLES'", "SET SESSION sql_mode = DEFAULT"),
    "several statements": _do(
        "INSERT INTO item SET note = '{side} {n} a'; UPDATE item SET note = '{side} {n} b'"
        " WHERE note = '{side} {n} a'"
    ),
    "temporary table": _do(
        "CREATE TEMPORARY TABLE temp_{n} AS SELECT 1 AS n FROM stock LIMIT 2",
        "INSERT INTO temp_{n} VALUES (7)",
        "DROP TEMPORARY TABLE temp_{n}",
    ),
    "commit and go on": _do("INSERT INTO item SET note = '{side} {n}'", "COMMIT AND CHAIN"),
    "autocommit": _do("SET autocommit = 1", "INSERT INTO item SET note = '{side} {n}'", "SET autocommit = 0"),
}
"""Kinds that ordinary work does, too: they change rows, and nothing that the oracle expects to stay."""

OWN: dict[str, Steps] = {
    "insert apart": _do("INSERT INTO apart (note) VALUES ('{side} {n}')"),
    "lock tables": _do(
        "LOCK TABLES apart WRITE", "INSERT INTO apart (note) VALUES ('{side} {n}')", "UNLOCK TABLES"
    ),
    "two phases": _do(
        "COMMIT",
        "XA START 'x{n}'",
        "INSERT INTO item (note) VALUES ('{side} {n}')",
        "XA END 'x{n}'",
        "XA PREPARE 'x{n}'",
        "XA COMMIT 'x{n}'",
    ),
    "sequence": _do("SELECT NEXTVAL(numbers)"),
    "next value for": _do("SELECT NEXT VALUE FOR numbers"),
    "set sequence": _do("SELECT SETVAL(numbers, 20000000{lock})"),
    "restart sequence": _do("ALTER SEQUENCE numbers RESTART 2000000000"),
    "create sequence": _do("CREATE SEQUENCE sequence_{n}", "SELECT NEXTVAL(sequence_{n})"),
    "truncate": _do("TRUNCATE scratch"),
    "truncate production's": _do("TRUNCATE item"),
    "create table": _do(
        "CREATE TABLE table_{n} (id int AUTO_INCREMENT PRIMARY KEY, note varchar(99))",
        "INSERT INTO table_{n} (note) VALUES ('{side}')",
    ),
    "create as": _do("CREATE TABLE copied_{n} AS SELECT * FROM stock LIMIT 1"),
    "create like": _do("CREATE TABLE like_{n} LIKE item", "INSERT INTO like_{n} SET note = '{side}'"),
    "alter table": _do("ALTER TABLE scratch ADD COLUMN c_{n} int", "ALTER TABLE scratch DROP COLUMN c_{n}"),
    "rename table": _do("CREATE TABLE old_{n} (id int)", "RENAME TABLE old_{n} TO new_{n}"),
    "create index": _do("CREATE INDEX index_{n} ON scratch (note)", "DROP INDEX index_{n} ON scratch"),
    "drop table": _do("CREATE TABLE gone_{n} (id int)", "DROP TABLE gone_{n}"),
    "create view": _do("CREATE VIEW view_{n} AS SELECT * FROM item"),
    "create procedure": _do(
        "CREATE PROCEDURE made_{n}() INSERT INTO item (note) VALUES ('{side} {n}')", "CALL made_{n}()"
    ),
    "create function": _do(
        "CREATE FUNCTION made_{n}() RETURNS int BEGIN INSERT INTO item SET note = '{side} {n}';"
        " RETURN 1; END",
        "SELECT made_{n}()",
    ),
    "create trigger": _do(
        "CREATE TABLE seen_{n} (note varchar(200))",
        "CREATE TRIGGER see_{n} AFTER INSERT ON seen_{n} FOR EACH ROW INSERT INTO item SET note = NEW.note",
        "INSERT INTO seen_{n} VALUES ('{side} {n}')",
    ),
    "create event": _do("CREATE EVENT event_{n} ON SCHEDULE EVERY 1 YEAR DO DELETE FROM item"),
    "analyze": _do("ANALYZE TABLE apart"),
    "optimize": _do("OPTIMIZE TABLE apart"),
    "flush tables": _do("FLUSH TABLES apart"),
    "user lock": _do("SELECT GET_LOCK('{side} {lock}', 0)"),
    "global setting": _do("SET GLOBAL max_connections = 199"),
    "unlogged": _do("SET SESSION sql_log_bin = 0", "INSERT INTO item SET note = '{side} {n}'"),
    "kill": _do("KILL QUERY {victim}"),
    "role": _do("SET ROLE soak_app"),
    "grant": _do(f"GRANT ALL ON {FOREIGN}.* TO CURRENT_USER()"),
    "create user": _do("CREATE USER made_{n} IDENTIFIED BY 'x'"),
    "create database": _do("CREATE DATABASE made_{n}"),
    "outfile": _do("SELECT 1 INTO OUTFILE '{file}.{n}'"),
    "other engine": _do("CREATE TABLE far_{n} (id int) ENGINE = FEDERATED CONNECTION = 'mysql://x@y/z/t'"),
    "other database": _do(f"USE {FOREIGN}", "INSERT INTO item (note) VALUES ('{side} {n}')"),
    "qualified insert": _do(f"INSERT INTO {FOREIGN}.item (note) VALUES ('{{side}} {{n}}')"),
    "qualified update": _do(f"UPDATE {FOREIGN}.stock s JOIN stock USING (id) SET s.amount = 0"),
    "qualified delete": _do(f"DELETE FROM {FOREIGN}.item"),
    "qualified select": _do(f"SELECT * FROM {FOREIGN}.stock FOR UPDATE"),
    "qualified sequence": _do(f"SELECT NEXTVAL({FOREIGN}.numbers)"),
    "qualified set sequence": _do(f"SELECT SETVAL({FOREIGN}.numbers, 3)"),
    "qualified procedure": _do(f"CALL {FOREIGN}.put_item_as_owner('{{side}} {{n}}')"),
    "qualified function": _do(f"SELECT {FOREIGN}.add_item('{{side}} {{n}}')"),
    "qualified view": _do(f"CREATE VIEW view_{{n}} AS SELECT * FROM {FOREIGN}.item"),
    "qualified create": _do(f"CREATE TABLE {FOREIGN}.table_{{n}} (id int)"),
    "qualified like": _do(f"CREATE TABLE like_{{n}} LIKE {FOREIGN}.item"),
    "qualified drop": _do(f"DROP TABLE IF EXISTS {FOREIGN}.parts"),
    "qualified truncate": _do(f"TRUNCATE {FOREIGN}.parts"),
    "qualified rename": _do(
        "CREATE TABLE old_{n} (id int)", f"RENAME TABLE old_{{n}} TO {FOREIGN}.new_{{n}}"
    ),
    "qualified lock": _do(f"LOCK TABLES {FOREIGN}.item WRITE"),
    "qualified backup lock": _do(f"BACKUP LOCK {FOREIGN}.item"),
    "qualified handler": _do(f"HANDLER {FOREIGN}.item OPEN AS theirs"),
    "qualified temporary": _do(f"CREATE TEMPORARY TABLE {FOREIGN}.temp_{{n}} (id int)"),
    "qualified trigger": _do(f"CREATE TRIGGER {FOREIGN}.see_{{n}} AFTER INSERT ON {FOREIGN}.item"
                             " FOR EACH ROW SET @n = 1"),
    "qualified event": _do(f"CREATE EVENT {FOREIGN}.event_{{n}} ON SCHEDULE EVERY 1 DAY DO SET @n = 1"),
    "qualified analyze": _do(f"ANALYZE TABLE {FOREIGN}.stock"),
    "qualified key": _do(
        f"CREATE TABLE key_{{n}} (id int, FOREIGN KEY (id) REFERENCES {FOREIGN}.stock (id))"
    ),
    "procedure that reaches out": _do(
        "CREATE PROCEDURE made_{n}() EXECUTE IMMEDIATE CONCAT('INSERT INTO soak', '_shop.item SET note = 1')",
        "CALL made_{n}()",
    ),
    "text that reaches out": _do(
        "EXECUTE IMMEDIATE CONCAT('DELETE FROM soak', '_shop.item')"
    ),
}  # fmt: skip
"""Kinds of marked work alone: definitions, sequences, locks, and ways out of the shadow."""

KINDS = ROWS | OWN
"""Kind -> its steps; {n} is a number of its own, {side} says whose it is."""

FAULTS: dict[str, Steps] = {
    "fill the disk": _do("INSERT INTO filler SELECT REPEAT('y', 1000) FROM seq_1_to_2000"),
}
"""Kinds that only the tests of faults do."""

AFTER = {
    "lock tables": ("UNLOCK TABLES",),
    "two phases": ("XA END 'x{n}'", "XA ROLLBACK 'x{n}'"),
    "autocommit": ("SET autocommit = 0",),
    "session setting": ("SET SESSION sql_mode = DEFAULT",),
    "handler": ("HANDLER walk CLOSE",),
}
"""What is tried when a kind failed half way, as careful code does."""

REFUSED = frozenset(
    {
        "flush tables", "user lock", "global setting", "unlogged", "kill", "role", "grant", "create user",
        "create database", "outfile", "other engine", "other database", "procedure that reaches out",
        "text that reaches out",
    }
) | {kind for kind in OWN if kind.startswith("qualified ")}  # fmt: skip
"""Kinds that never go well: the server refuses them to the shadow's login, or perflab refuses them itself."""

SELDOM = REFUSED | {kind for kind in OWN if kind.startswith(("create ", "truncate", "alter ", "rename "))} | {
    "drop table", "optimize", "two phases", "restart sequence", "lock tables",
}  # fmt: skip
"""Kinds that are drawn less often: they do not count, or have others wait."""
