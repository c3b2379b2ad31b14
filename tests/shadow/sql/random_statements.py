"""Random statements for modes ``schema`` and ``table``: ordinary ones, and those that reach production.

What is drawn need not be sensible: what the rewriting lets pass is sent by a superuser, and production must
not change, whether the server takes it or not.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

POSTGRESQL = """
CREATE TABLE item (id bigserial PRIMARY KEY, note text NOT NULL, n int DEFAULT 0);
CREATE TABLE stock (id int PRIMARY KEY, amount int NOT NULL);
CREATE TABLE "Odd ""name" (id int, note text);
CREATE TABLE parts (id int, note text) PARTITION BY LIST (id);
CREATE TABLE parts_1 PARTITION OF parts DEFAULT;
CREATE TABLE base (id int, note text);
CREATE TABLE heir () INHERITS (base);
CREATE SEQUENCE numbers;
CREATE SCHEMA other;
CREATE TABLE other.far (id int, note text);
CREATE VIEW items AS SELECT id, note FROM item;
CREATE FUNCTION add_item(text) RETURNS bigint LANGUAGE sql
    AS 'INSERT INTO public.item (note) VALUES ($1) RETURNING id';
CREATE FUNCTION add_item_as_owner(text) RETURNS bigint LANGUAGE sql SECURITY DEFINER
    AS 'INSERT INTO public.item (note) VALUES ($1) RETURNING id';
CREATE FUNCTION lower(int) RETURNS bigint LANGUAGE sql AS 'SELECT public.add_item(''lower'')';
CREATE FUNCTION count(text, int) RETURNS bigint LANGUAGE sql AS 'SELECT public.add_item(''count'')';
CREATE FUNCTION noted(item) RETURNS bigint LANGUAGE sql AS 'SELECT public.add_item(''noted'')';
CREATE FUNCTION set(int) RETURNS bigint LANGUAGE sql AS 'SELECT public.add_item(''set'')';
CREATE FUNCTION filter(int) RETURNS bigint LANGUAGE sql AS 'SELECT public.add_item(''filter'')';
CREATE FUNCTION "like"(int) RETURNS bigint LANGUAGE sql AS 'SELECT public.add_item(''like'')';
CREATE PROCEDURE put_item(text) LANGUAGE sql AS 'INSERT INTO public.item (note) VALUES ($1)';
CREATE FUNCTION of_item() RETURNS SETOF item LANGUAGE sql
    AS 'INSERT INTO public.item (note) VALUES (''of'') RETURNING *';
INSERT INTO item (note) SELECT 'real ' || n FROM generate_series(1, 5) n;
INSERT INTO stock SELECT n, 10 FROM generate_series(0, 9) n;
INSERT INTO parts VALUES (1, 'a');
INSERT INTO base VALUES (1, 'b');
INSERT INTO heir VALUES (2, 'c');
SELECT lo_create(4242);
"""


def _lines(text: str) -> tuple[str, ...]:
    return tuple(text.strip().splitlines())


MARIADB = _lines(r"""
CREATE TABLE item (id bigint AUTO_INCREMENT PRIMARY KEY, note varchar(99) NOT NULL, n int DEFAULT 0)
CREATE TABLE stock (id int PRIMARY KEY, amount int NOT NULL)
CREATE TABLE `Odd ``name` (id int, note varchar(99))
CREATE TABLE base (id int, note varchar(99))
CREATE SEQUENCE numbers
CREATE VIEW items AS SELECT id, note FROM item
CREATE FUNCTION add_item(x text) RETURNS int DETERMINISTIC BEGIN INSERT item (note) VALUES (x); RETURN 1; END
CREATE FUNCTION lowest(x varchar(99)) RETURNS bigint DETERMINISTIC RETURN add_item(x)
CREATE PROCEDURE put_item(x varchar(99)) INSERT INTO item (note) VALUES (x)
INSERT INTO item (note) VALUES ('a'), ('b'), ('c')
INSERT INTO stock VALUES (1, 10), (2, 10)
INSERT INTO base VALUES (1, 'b')
""")
_OTHERS = {
    "postgresql": _lines(r"""
DO $$ BEGIN PERFORM add_item('x'); END $$
CALL put_item('x')
CALL public.put_item('x')
SET search_path = other, public
SET LOCAL search_path TO public
SET ROLE postgres
RESET ALL
SELECT set_config('search_path', 'public', false)
SELECT lo_create(0)
SELECT lo_unlink(4242)
SELECT lo_from_bytea(0, 'x')
SELECT pg_notify('news', 'x')
NOTIFY news, 'x'
LISTEN news
SELECT pg_advisory_lock(7)
SELECT pg_try_advisory_xact_lock(7)
SELECT query_to_xml('DELETE FROM item', true, true, '')
SELECT table_to_xml('public.item', true, true, '')
SELECT * FROM of_item()
SELECT (item).noted FROM public.item
SELECT pg_catalog.setval('public.numbers', 9)
UPDATE pg_class SET relname = 'x' WHERE relname = 'item'
DELETE FROM pg_catalog.pg_class WHERE false
TRUNCATE item
TRUNCATE public.item, stock RESTART IDENTITY
TRUNCATE stock CASCADE
LOCK TABLE public.stock IN EXCLUSIVE MODE
CREATE TABLE made (id int)
DROP TABLE item
ALTER TABLE item ADD COLUMN x int
CREATE RULE r AS ON INSERT TO item DO INSTEAD NOTHING
CREATE TEMP TABLE item (id int, note text)
SELECT * INTO made FROM item
GRANT ALL ON item TO PUBLIC
PREPARE p AS INSERT INTO item (note) VALUES ('p')
EXECUTE p
EXECUTE p (add_item('x'))
DECLARE c CURSOR FOR SELECT add_item('x')
DECLARE c CURSOR FOR SELECT * FROM item
FETCH ALL FROM c
COPY item TO STDOUT
COPY public.item TO PROGRAM 'cat'
COPY item (note) FROM PROGRAM 'echo x'
COPY item (note) FROM '/etc/hostname'
COPY (DELETE FROM item RETURNING *) TO STDOUT
EXPLAIN ANALYZE DELETE FROM item
EXPLAIN (ANALYZE) INSERT INTO public.item (note) VALUES ('x')
SELECT 1; DELETE FROM public.item; COMMIT
BEGIN; SELECT add_item('x'); COMMIT
TABLE item
ALTER SEQUENCE numbers RESTART
SELECT nextval('numbers'::regclass)
SELECT nextval(c.oid) FROM pg_class c WHERE relname = 'numbers'
SELECT nextval(pg_get_serial_sequence('item', 'id'))
COMMENT ON TABLE item IS 'x'
SELECT setval(pg_get_serial_sequence('public.item', 'id'), 99)
SELECT nextval('num' || 'bers')
INSERT INTO items (note) VALUES ('by a view')
DELETE FROM public.items
VACUUM item
ANALYZE item
COMMIT PREPARED 'x'
PREPARE TRANSACTION 'x'
IMPORT FOREIGN SCHEMA x FROM SERVER y INTO z
"""),
    "mariadb": _lines(r"""
CALL put_item('x')
DO add_item('x')
SET sql_mode = 'ANSI_QUOTES'
USE mysql
LOCK TABLES item WRITE
SET @x = add_item('x')
SELECT add_item('x') INTO @x
SELECT GET_LOCK('x', 0)
TRUNCATE item
TRUNCATE TABLE stock
DROP TABLE item
CREATE TABLE made (id int)
ALTER TABLE item ADD x int
CREATE TEMPORARY TABLE item (id int)
SELECT NEXT VALUE FOR numbers
SELECT NEXTVAL(numbers)
SELECT SETVAL(numbers, 99)
SELECT lastval(numbers)
SELECT /*! add_item('x') , */ 1
SELECT /*M! add_item('x') , */ 1
SELECT 1 /*!50000 ; DELETE FROM item */
BEGIN NOT ATOMIC DELETE FROM item; END
DELETE item FROM item JOIN stock ON true
DELETE i FROM item i
UPDATE item, stock SET item.n = 1
UPDATE item JOIN stock ON item.id = stock.id SET item.n = 1, stock.amount = 0
REPLACE INTO item (note) VALUES ('x')
INSERT INTO item SET note = 'x'
INSERT INTO items (note) VALUES ('by a view')
DELETE FROM items
INSERT INTO item (id, note) VALUES (1, 'x') ON DUPLICATE KEY UPDATE note = add_item('x')
INSERT INTO item (id, note) VALUES (1, 'x') ON DUPLICATE KEY UPDATE note = item.note
HANDLER item OPEN
SELECT * FROM item PROCEDURE ANALYSE()
PREPARE p FROM 'DELETE FROM item'
EXECUTE IMMEDIATE 'DELETE FROM item'
SELECT * FROM item INTO OUTFILE '/tmp/perflab-never'
LOAD DATA INFILE '/etc/hostname' INTO TABLE item
SELECT 1; DELETE FROM item
SET STATEMENT max_statement_time = 1 FOR DELETE FROM item
OPTIMIZE TABLE item
DELETE FROM shop.item
SELECT --add_item('x') 1
SELECT 'a\' , add_item('x') , 'b'
RENAME TABLE item TO x
SELECT "a" , add_item("x")
SELECT lowest ('x')
SELECT shop.add_item('x')
SELECT `add_item`('x')
"""),
}
_CALLS = {
    "postgresql": _lines(r"""
lower('A')
upper(note)
add_item('x')
public.add_item('x')
"add_item"('x')
lower(1)
public.add_item_as_owner('x')
add_item_as_owner ('x')
nextval('numbers')
nextval('public.numbers')
nextval('item_id_seq'::regclass)
currval('numbers')
setval('item_id_seq', 7)
lastval()
now()
count('a'::text, 1)
count(*)
set(1)
filter(1)
"like"(1)
like(1)
coalesce(note, 'x')
lo_create(0)
pg_notify('news', 'x')
substring(note FROM 1 FOR 2)
substring(note, 1)
extract(epoch FROM now())
random()
pg_advisory_lock(7)
(SELECT add_item('x'))
noted(item)
pg_catalog.pg_try_advisory_lock(7)
query_to_xml('DELETE FROM item', true, true, '')
array_length(ARRAY[1, 2], 1)
1 OPERATOR(pg_catalog.+) 1
'x'::regclass
'item'::regclass::oid
"""),
    "mariadb": _lines(r"""
lower('A')
upper(note)
add_item('x')
shop.add_item('x')
`add_item`('x')
lowest('x')
NEXTVAL(numbers)
NEXT VALUE FOR numbers
now()
count(*)
count (*)
ifnull(note, 'x')
GET_LOCK('x', 0)
LOAD_FILE('/etc/hostname')
substring(note, 1)
if(1, 2, 3)
(SELECT add_item('x'))
last_insert_id()
/*!add_item('x')*/
group_concat(note)
rand()
char_length('it\'s')
sleep(0)
"""),
}
_NAMES = {
    "postgresql": _lines(r"""
item
stock
public.item
public.stock
"item"
ITEM
Public.Item
"Odd ""name"
parts
parts_1
public . base
heir
other.far
items
public.items
public."item"
missing
x
y
pg_class
pg_catalog.pg_class
information_schema.tables
shop.public.item
U&"it\0065m"
"""),
    "mariadb": _lines(r"""
item
stock
`item`
`Odd ``name`
base
items
missing
x
y
`shop`.`item`
shop.stock
mysql.user
information_schema.tables
ITEM
"""),
}
_SPACES = (" ", " ", " ", " ", "\n", "\t", " /* from item; */ ", " -- delete from item\n", "/**/")


class Statements:
    """Draws statements.

    Parameters
    ----------
    source : random.Random
        Where choices come from.
    kind : {'postgresql', 'mariadb'}
        Whose SQL.
    """

    def __init__(self, source: random.Random, kind: str) -> None:
        self._random, self._kind = source, kind
        self._tame = False
        self._others = _OTHERS[kind]

    def draw(self) -> str:
        """Return one statement."""
        ways: tuple[Callable[[], str], ...] = (
            self._select,
            self._insert,
            self._insert,
            self._update,
            self._update,
            self._delete,
            self._delete,
            self._with,
            self._other,
            self._merge,
        )
        self._tame = self._one_of(2)
        text = self._pick(ways)()
        return self._spaced(text) if self._one_of(4) else text

    def _pick(self, choices: tuple[Any, ...]) -> Any:
        return choices[self._random.randrange(len(choices))]

    def _one_of(self, n: int) -> bool:
        return self._random.randrange(n) == 0

    def _spaced(self, text: str) -> str:
        words = text.split(" ")
        return "".join(word + self._pick(_SPACES) for word in words[:-1]) + words[-1]

    def _name(self) -> str:
        if self._tame:
            return self._pick(("item", "item", _NAMES[self._kind][2]))
        return self._pick(_NAMES[self._kind])

    def _source(self) -> str:
        name = self._name()
        if self._tame:
            return self._pick((name, f"(SELECT * FROM {name}) AS item"))
        if self._kind == "postgresql" and self._one_of(8):
            return self._pick(
                (
                    f"ONLY {name}",
                    "generate_series(1, 3) AS g(id)",
                    "of_item() AS o",
                    f"{name} *",
                    f"LATERAL (SELECT id FROM {name}) AS l",
                    "(VALUES (1, 'v')) AS v(id, note)",
                )
            )
        return self._pick((name, name, f"{name} AS a", f"{name} b", f"(SELECT * FROM {name}) AS q"))

    def _value(self) -> str:
        if self._tame:
            return self._pick(("'x'", "item.note", "upper(note)", "(SELECT max(note) FROM item)", "'it''s'"))
        if self._one_of(2):
            return self._pick(_CALLS[self._kind])
        return self._pick(
            (
                "1",
                "'x'",
                "'it''s'",
                "note",
                "id",
                "NULL",
                "item.note",
                "a.id",
                "(SELECT max(id) FROM item)",
                "'; DELETE FROM item; --'",
                "item.id + 1",
            )
        )

    def _condition(self) -> str:
        if self._tame:
            return self._pick(("item.id > 0", "item.id IN (SELECT id FROM item)", "item.note IS NOT NULL"))
        return self._pick(
            (
                "id > 0",
                "item.id = 1",
                "true",
                f"id IN (SELECT id FROM {self._name()})",
                f"EXISTS (SELECT 1 FROM {self._source()})",
                f"{self._value()} IS NOT NULL",
                "note LIKE 'x%'",
                f"id = {self._value()}",
            )
        )

    def _select(self) -> str:
        sources = self._pick((", ", " JOIN ", " CROSS JOIN ")).join(
            self._source() for _ in range(1 + self._one_of(3))
        )
        ends = (
            "",
            "",
            " ORDER BY 1",
            " LIMIT 1",
            " FOR UPDATE",
            f" UNION SELECT {self._value()} FROM {self._source()}",
        )
        joined = sources.replace(" JOIN ", " NATURAL JOIN ", 1) if " CROSS" not in sources else sources
        return f"SELECT {self._value()} FROM {joined} WHERE {self._condition()}{self._pick(ends)}"

    def _insert(self) -> str:
        target = self._name()
        rows = self._pick(
            (
                f"VALUES ({self._value()})",
                f"SELECT {self._value()} FROM {self._source()}",
                "SELECT 'x'",
                f"VALUES ('x'), ({self._value()})",
            )
        )
        ends = ("", "", " RETURNING id")
        if self._kind == "postgresql":
            ends += (
                " ON CONFLICT DO NOTHING",
                " ON CONFLICT (id) DO UPDATE SET note = excluded.note || item.note",
            )
        columns = "(note)" if self._tame else self._pick(("(note)", "(note)", "(id)", ""))
        return f"INSERT INTO {target} {columns} {rows}{self._pick(ends)}"

    def _update(self) -> str:
        column = "note" if self._tame else self._pick(("note", "n", "amount"))
        source = f" FROM {self._source()}" if self._kind == "postgresql" and self._one_of(3) else ""
        alias = "" if self._tame else self._pick(("", "", " AS a", " b"))
        return (
            f"UPDATE {self._name()}{alias} SET {column} = {self._value()}{source} WHERE {self._condition()}"
        )

    def _delete(self) -> str:
        using = f" USING {self._source()}" if self._kind == "postgresql" and self._one_of(3) else ""
        return f"DELETE FROM {self._name()}{using} WHERE {self._condition()}"

    def _merge(self) -> str:
        if self._kind == "mariadb":
            return self._other()
        return (
            f"MERGE INTO {self._name()} t USING {self._source()} ON t.id = 1"
            f" WHEN MATCHED THEN {self._pick(('DELETE', 'UPDATE SET note = ' + self._value(), 'DO NOTHING'))}"
            " WHEN NOT MATCHED THEN INSERT (note) VALUES ('merged')"
        )

    def _with(self) -> str:
        name = self._pick(("x", "y", "item", "stock", '"item"' if self._kind == "postgresql" else "`item`"))
        recursive = self._pick(("", "", "RECURSIVE "))
        inner = self._pick((self._select, self._insert, self._delete, self._update, self._with))
        body = inner() if self._kind == "postgresql" else self._select()
        if (
            self._kind == "postgresql"
            and body.startswith(("INSERT", "DELETE", "UPDATE"))
            and " RETURNING" not in body
        ):
            body += " RETURNING *"
        outer = self._pick(
            (self._select, self._insert, self._update, self._delete)
            if self._kind == "postgresql"
            else (self._select,)
        )
        return f"WITH {recursive}{name} AS ({body}) {outer()}"

    def _other(self) -> str:
        return self._pick(self._others)
