"""What one statement of MariaDB's dialect does, and how many rows it changed by what the server said.

`perflab.shadow.sql.statement` reads the words that all dialects share; here what is MariaDB's own is taken
out before: backticks, ``#`` comments, strings in double quotes, backslashes, comments that are executed,
modifiers. In doubt a statement may change anything.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from perflab.shadow.sql.statement import HARMLESS, READS, Statement, read_bare, words

USER_LOCKS = r"\b(get_lock|release_lock|release_all_locks|is_free_lock|is_used_lock)\b"
"""Functions on locks that all databases of a server share."""
REACHING_OUT = ("federated", "federatedx", "connect", "spider", "s3", "sphinx")
"""Engines whose tables are elsewhere."""

_READ_IN_FULL = 16_384
_CACHED = 2_000
_SHOWN = 2_000
_TOKEN = re.compile(
    r"""(?P<comment>\#[^\n]*|--(?=\s|\Z)[^\n]*|/\*(?!M?!).*?(?:\*/|\Z))"""
    r"""|(?P<executed>/\*M?!\d*|\*/)"""
    r"""|(?P<string>'(?:[^'\\]|\\(?:.|\Z)|'')*(?:'|\Z)|"(?:[^"\\]|\\(?:.|\Z)|"")*(?:"|\Z))"""
    r"""|(?P<name>`(?:[^`]|``)*`)""",
    re.DOTALL,
)
_VALUE = re.compile(
    r"""(?P<name>"[^"]*")|''|(?<![\w$.])(?:0x[0-9a-f]+|\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?![\w$])""", re.IGNORECASE
)
_MODIFIERS = r"(?:(?:low_priority|high_priority|delayed|quick|ignore|concurrent|local)\s+)*"
_INSERT = re.compile(rf"(insert|replace)\s+{_MODIFIERS}(?:into\s+)?(?![\s(])", re.IGNORECASE)
_CHANGE = re.compile(rf"(update|delete)\s+{_MODIFIERS}", re.IGNORECASE)
_UPSERT = re.compile(r"\bon\s+duplicate\s+key\s+update\b", re.IGNORECASE)
_LOAD = re.compile(
    rf"load\s+(?:data|xml)\s+{_MODIFIERS}infile\s+''\s+(?P<replace>replace\s+)?(?:ignore\s+)?into\s+table\s+",
    re.IGNORECASE,
)
_SET_FOR = re.compile(r"set\s+statement\s.*?\sfor\s+", re.IGNORECASE | re.DOTALL)
_INTO = re.compile(r"\binto\s+(?:(?:outfile|dumpfile)\s+''|@[\w$]+(?:\s*,\s*@[\w$]+)*)", re.IGNORECASE)
_NAME = r'(?:"[^"]+"|[\w$]+)'
_ONE_TABLE = {
    "UPDATE": re.compile(
        rf"update\s+{_NAME}(?:\s*\.\s*{_NAME})?(?:\s+(?:as\s+)?{_NAME})?\s+set\b", re.IGNORECASE
    ),
    "DELETE": re.compile(
        rf"delete\s+from\s+{_NAME}(?:\s*\.\s*{_NAME})?\s*(?:$|(?:where|order|limit|returning)\b)",
        re.IGNORECASE,
    ),
}
_TARGET = re.compile(rf"(?:into(?:\s+table)?|update|from)\s+({_NAME})\s*\.\s*{_NAME}", re.IGNORECASE)
_TEMPORARY = re.compile(
    rf"(?:create\s+(?:or\s+replace\s+)?|drop\s+)temporary\s+(?:table|sequence)\s+"
    rf"(?:if\s+(?:not\s+)?exists\s+)?(?:{_NAME}\s*\.\s*)?({_NAME})",
    re.IGNORECASE,
)
_SEQUENCE = re.compile(r"\b(?:nextval|setval)\s*\(|\bnext\s+value\s+for\b", re.IGNORECASE)
_TUPLES = re.compile(r"\bvalues?\s*\(", re.IGNORECASE)

_READS = READS | {
    "USE", "DESC", "DESCRIBE", "HELP", "HANDLER", "KILL", "PREPARE", "UNLOCK", "CHECKSUM", "FLUSH", "STOP"
}  # fmt: skip
_COMMITS = frozenset(
    {
        "ALTER", "ANALYZE", "BEGIN", "CACHE", "CHECK", "CREATE", "DROP", "FLUSH", "GRANT", "INSTALL", "LOCK",
        "OPTIMIZE", "RENAME", "REPAIR", "RESET", "REVOKE", "START", "TRUNCATE", "UNINSTALL", "UNLOCK",
    }
)  # fmt: skip
_HARMLESS = (HARMLESS - {"nextval", "setval"}) | words(
    """
    if ifnull isnull nvl nvl2 date_format date_add date_sub adddate subdate curdate curtime current_date
    current_time current_timestamp localtime localtimestamp sysdate utc_date utc_time utc_timestamp
    unix_timestamp from_unixtime from_days to_days datediff timediff timestampdiff timestampadd
    str_to_date time_format time_to_sec sec_to_time year quarter month week day hour minute second
    microsecond dayofweek dayofmonth dayofyear dayname monthname last_day weekday weekofyear yearweek
    get_format convert_tz convert binary group_concat last_insert_id database schema user current_user
    session_user system_user current_role found_rows row_count connection_id uuid uuid_short rand
    find_in_set field elt instr locate hex unhex ucase lcase mid space insert soundex substring_index
    truncate crc32 sha sha1 sha2 password to_base64 from_base64 compress uncompress aes_encrypt
    aes_decrypt inet_aton inet_ntoa inet6_aton inet6_ntoa json_extract json_unquote json_value
    json_query json_object json_array json_array_append json_set json_insert json_replace json_remove
    json_contains json_contains_path json_keys json_length json_type json_valid json_search json_merge
    json_merge_patch json_arrayagg json_objectagg json_table json_quote json_depth match against bit_and
    bit_or bit_xor bit_count std stddev_pop stddev_samp var_pop var_samp any_value interval greatest
    least log2 log10 pow degrees radians pi sin cos tan atan atan2 asin acos regexp_instr regexp_substr
    char sleep get_lock release_lock release_all_locks is_free_lock is_used_lock values value int
    integer bigint double decimal unsigned signed datetime date time key index use force ignore regexp
    rlike div xor collate columns path partition for system_time
    """
)


@dataclass(frozen=True, slots=True)
class MariaStatement:
    """What a statement does.

    Parameters
    ----------
    statement : Statement
        As for every dialect.
    commits : bool
        Whether it commits an open transaction before it begins.
    database : str
        The other database its table is in, where it names one; lower case.
    counting : {'', 'update', 'upsert'}
        How its row count is to be read (`outcome`).
    rows : int
        How many rows an INSERT writes out; 0 is unknown.
    temporary : str
        The temporary table it makes or drops: one that no change stream shows.
    shown : str
        Its text without comments and values, for spans.
    """

    statement: Statement
    commits: bool = False
    database: str = ""
    counting: str = ""
    rows: int = 0
    temporary: str = ""
    shown: str = ""

    def outcome(self, affected: int, numbers: Sequence[int], *, found_rows: bool) -> tuple[Statement, int]:
        """Return what it did to rows and to how many; below 0 where that cannot be told.

        Parameters
        ----------
        affected : int
            The server's count: 2 for a row that an upsert found and changed.
        numbers : sequence of int
            The numbers of the server's message; of an UPDATE: matched, changed, warnings.
        found_rows : bool
            Whether the client has rows counted that were found and not changed (``CLIENT.FOUND_ROWS``).
        """
        if self.counting == "upsert" and self.rows == 1:
            if affected == 2:
                return replace(self.statement, operation="UPDATE", writes="rows"), 1
            if affected == 0 or (affected == 1 and not found_rows):
                return replace(self.statement, writes="rows"), affected
        if self.counting == "update" and found_rows:
            return self.statement, numbers[1] if len(numbers) == 3 else -1
        return self.statement, affected


def read_mariadb(text: str) -> MariaStatement:
    """Read what a statement does; of a very long one the head is read, and it counts as opaque.

    Examples
    --------
    >>> read_mariadb("INSERT IGNORE `orders` SET note = 'x' # a note").statement.summary
    'INSERT orders'
    >>> read_mariadb("UPDATE a JOIN b USING (id) SET a.x = b.x").statement.writes
    'opaque'
    """
    if len(text) <= _CACHED:
        return _read_again(text)
    if len(text) <= _READ_IN_FULL:
        return _read(text)
    head = _read(text[:_READ_IN_FULL])
    return replace(head, statement=replace(head.statement, writes="opaque"), counting="", rows=0)


def without_values(text: str) -> str:
    """Return a statement with its strings empty and without comments."""
    return _TOKEN.sub(_without_words, text)


def _read(text: str) -> MariaStatement:
    bare = without_values(text).strip().lstrip("(; \n\t")
    shown = _VALUE.sub(lambda found: found["name"] or "?", bare).replace('"', "`")[:_SHOWN]
    bare = _SET_FOR.sub("", bare, count=1) if _SET_FOR.match(bare) else bare
    temporary = _TEMPORARY.match(bare)
    if temporary is not None:
        copied = re.search(r"\bselect\b", bare, re.IGNORECASE) is not None and _SEQUENCE.search(bare)
        statement = Statement(bare.split()[0].upper(), "", "opaque" if copied or ";" in bare else "no")
        return MariaStatement(statement, temporary=_plain(temporary[1]), shown=shown)
    statement, counting, rows = _read_rows(bare)
    executed = any(found["executed"] for found in _TOKEN.finditer(text)) if "*/" in text else False
    sequence = _SEQUENCE.search(bare) is not None  # a change stream shows its rows, too
    if sequence or (statement.writes == "rows" and (executed or not statement.table)):
        statement, counting = replace(statement, writes="opaque"), ""
    target = _TARGET.search(bare) if statement.writes != "no" else None
    commits = statement.operation in _COMMITS and not bare.lower().startswith("start slave")
    database = _plain(target[1]) if target is not None else ""
    return MariaStatement(statement, commits, database, counting, rows, "", shown)


_read_again = lru_cache(maxsize=2048)(_read)


def _read_rows(bare: str) -> tuple[Statement, str, int]:
    """Read a statement; return it, how its row count is to be read, and how many rows it writes out."""
    load = _LOAD.match(bare)
    if load is not None:
        read = read_bare(f"insert into {bare[load.end() :]}", _READS, _HARMLESS)
        writes = "opaque" if load["replace"] else read.writes
        return Statement("LOAD", read.table, writes), "", 0
    insert = _INSERT.match(bare)
    if insert is not None:
        upsert = _UPSERT.search(bare)
        rest = bare[insert.end() : upsert.start() if upsert and ";" not in bare else None]
        read = read_bare(f"insert into {rest}", _READS, _HARMLESS)
        if insert[1].lower() == "replace":
            return Statement("REPLACE", read.table, "opaque"), "", 0
        if upsert is None or read.writes != "rows":
            return read, "", 0
        return replace(read, writes="opaque"), "upsert", _tuples(rest)
    change = _CHANGE.match(bare)
    if change is not None:
        bare = f"{change[1]} {bare[change.end() :]}"
        read = read_bare(bare, _READS, _HARMLESS)
        if read.writes == "rows" and not _ONE_TABLE[read.operation].match(bare.rstrip("; \n\t")):
            read = replace(read, writes="opaque")
        return read, "update" if read.operation == "UPDATE" else "", 0
    if re.match(r"do\s", bare, re.IGNORECASE):
        return replace(read_bare(f"select {bare[3:]}", _READS, _HARMLESS), operation="DO"), "", 0
    if bare[:3].lower() == "set":
        calls = read_bare(f"select {bare[3:]}", _READS, _HARMLESS).writes
        return replace(read_bare(bare, _READS, _HARMLESS), writes=calls), "", 0
    return read_bare(_INTO.sub(" ", bare), _READS, _HARMLESS), "", 0


def _tuples(text: str) -> int:
    """Count the rows that VALUES writes out; 0 where there is no VALUES, or SET writes one: then 1."""
    found = _TUPLES.search(text)
    if found is None:
        return int(re.match(rf"\s*{_NAME}(?:\s*\.\s*{_NAME})?\s+set\b", text, re.IGNORECASE) is not None)
    depth = tuples = 0
    for sign in text[found.end() - 1 :]:
        if sign == "(":
            tuples += depth == 0
            depth += 1
        elif sign == ")":
            depth -= 1
    return tuples


def _without_words(token: re.Match[str]) -> str:
    name = token["name"]
    if name:
        return '"' + name[1:-1].replace('"', "").replace(";", "_") + '"'
    return "''" if token["string"] else " "


def _plain(name: str) -> str:
    return name.strip('"').lower()
