"""What one SQL statement does, in a few words: for span names and for the audit's claims.

This is no parser and decides nothing about safety: routing is by connection, never by text. It names a
statement (``SELECT stock``) and says whether it writes, where that can be told at a glance; in doubt it may.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache


def words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


_READ_IN_FULL = 16_384
_CACHED = 2_000
# one pass from the left, so that a comment sign in a string is a string and a quote in a comment a comment;
# what is not closed (the head of a long text) goes to the end, and is not looked at again from its middle
_TOKEN = re.compile(
    r"""(?P<comment>--[^\n]*|/\*.*?(?:\*/|\Z))"""
    r"""|(?P<string>\b[eE]'(?:[^'\\]|\\(?:.|\Z)|'')*(?:'|\Z)|'(?:[^']|'')*(?:'|\Z))"""
    r"""|\$(?P<tag>(?:[A-Za-z_]\w*)?)\$"""
    r"""|(?P<name>"(?:[^"]|"")*")""",
    re.DOTALL,
)
_TAG = re.compile(r"(?:[A-Za-z_]\w*)?\Z")
_NAME = r'((?:"[^"]+"|[\w$]+)(?:\s*\.\s*(?:"[^"]+"|[\w$]+))*)'
_FROM = re.compile(rf"\bfrom\s+(?:only\s+)?{_NAME}(?![\w$\x22]|\s*[.(])", re.IGNORECASE)
_FROM_INSIDE = re.compile(r"\b(?:extract|substring|trim|overlay)\s*\([^()]*\)", re.IGNORECASE)
_TARGET = {
    "INSERT": re.compile(rf"\binsert\s+into\s+{_NAME}", re.IGNORECASE),
    "UPDATE": re.compile(rf"\bupdate\s+(?:only\s+)?{_NAME}", re.IGNORECASE),
    "DELETE": re.compile(rf"\bdelete\s+from\s+(?:only\s+)?{_NAME}", re.IGNORECASE),
    "MERGE": re.compile(rf"\bmerge\s+into\s+(?:only\s+)?{_NAME}", re.IGNORECASE),
    "TRUNCATE": re.compile(rf"\btruncate\s+(?:table\s+)?(?:only\s+)?{_NAME}", re.IGNORECASE),
    "COPY": re.compile(rf"\bcopy\s+{_NAME}", re.IGNORECASE),
}
_WRITE_WORD = re.compile(
    r"\b(insert\s+into|update\s+(?:only\s+)?[^\s()]+\s+(?:(?:as\s+)?[^\s()]+\s+)?set|delete\s+from|merge\s+into)\b",
    re.IGNORECASE,
)
READS = words(
    "SELECT VALUES TABLE SHOW SET RESET BEGIN START SAVEPOINT RELEASE DECLARE FETCH MOVE CLOSE LOCK "
    "LISTEN UNLISTEN NOTIFY DISCARD DEALLOCATE CHECKPOINT"
)
_WRITERS = words("INSERT UPDATE DELETE COPY EXPLAIN")
_ENDS = {"COMMIT": "commit", "END": "commit", "ROLLBACK": "rollback", "ABORT": "rollback"}
_SAVEPOINT = re.compile(
    r"(?P<how>savepoint|release(?:\s+savepoint)?"
    rf"|rollback(?:\s+(?:work|transaction))?\s+to(?:\s+savepoint)?)\s+{_NAME}",
    re.IGNORECASE,
)
_CALL = re.compile(r'((?:\.\s*)?(?:"[^"]+"|(?<![\w$])[\w$]+))\s*\(')  # of a longer name the last part
# what stands before a parenthesis in a query and changes no row: words of SQL, types, plain functions
HARMLESS = words(
    "select values from where and or not in any all some exists on using as over filter within group by "
    "having order limit offset union intersect except distinct case when then else end between like ilike "
    "join lateral with materialized array row rows range is sets cube rollup grouping partition window "
    "interval only tablesample bernoulli system returning for of set numeric decimal varchar char "
    "character varying bit time timestamp timestamptz float count sum avg min max array_agg string_agg "
    "json_agg jsonb_agg json_object_agg jsonb_object_agg bool_and bool_or every stddev variance "
    "percentile_cont percentile_disc mode rank dense_rank row_number ntile lag lead first_value "
    "last_value nth_value percent_rank cume_dist coalesce nullif greatest least cast abs ceil ceiling "
    "floor round trunc mod power sqrt exp ln log sign random lower upper initcap length char_length "
    "octet_length trim btrim ltrim rtrim lpad rpad left right substring substr position strpos replace "
    "translate split_part concat concat_ws format repeat reverse md5 sha256 encode decode to_char to_date "
    "to_number to_timestamp regexp_replace regexp_match regexp_matches regexp_split_to_table starts_with "
    "ascii chr quote_ident quote_literal now clock_timestamp statement_timestamp transaction_timestamp "
    "extract date_part date_trunc age make_date make_interval justify_days date date_bin current_setting "
    "set_config current_schema current_database session_user version unnest generate_series array_length "
    "array_to_string string_to_array cardinality array_append array_remove array_position array_cat "
    "json_build_object jsonb_build_object json_build_array jsonb_build_array to_json to_jsonb row_to_json "
    "jsonb_set json_array_elements jsonb_array_elements jsonb_each jsonb_each_text json_each "
    "json_each_text jsonb_object_keys jsonb_path_query jsonb_typeof jsonb_array_length json_array_length "
    "to_tsvector to_tsquery plainto_tsquery websearch_to_tsquery ts_rank ts_headline gen_random_uuid "
    "uuidv4 uuidv7 nextval currval lastval setval pg_backend_pid pg_sleep pg_advisory_lock "
    "pg_advisory_xact_lock pg_try_advisory_lock pg_try_advisory_xact_lock pg_advisory_unlock "
    "pg_is_in_recovery txid_current pg_current_xact_id has_table_privilege pg_get_expr format_type "
    "obj_description to_regclass pg_table_is_visible pg_get_userbyid"
)


@dataclass(frozen=True, slots=True)
class Statement:
    """What a statement does.

    Parameters
    ----------
    operation : str
        Its leading keyword, upper case; for ``WITH``, that of the statement it introduces.
    table : str
        Unqualified lower-case name of its first table, ``""`` when there is none.
    writes : {'no', 'rows', 'opaque'}
        ``rows``: its row count is the rows it changed in ``table``; ``opaque``: it may change anything.
    ends : {'', 'commit', 'rollback', 'savepoint', 'release', 'rollback to'}
        What it does to the transaction, or to the savepoint ``savepoint``.
    """

    operation: str
    table: str
    writes: str
    ends: str = ""
    savepoint: str = ""

    @property
    def summary(self) -> str:
        """The span name: operation and table."""
        return f"{self.operation} {self.table}" if self.table else self.operation

    @property
    def row_operation(self) -> str:
        """What it does to each row: ``insert``, ``update`` or ``delete``."""
        return "insert" if self.operation in ("COPY", "LOAD") else self.operation.lower()


def read_statement(text: str) -> Statement:
    """Read what a statement does.

    Parameters
    ----------
    text : str
        One SQL statement (of several, joined by ``;``, the first names it and all make it opaque). Of a
        very long one only the head is read, and it counts as opaque unless that says it only reads.

    Returns
    -------
    Statement

    Examples
    --------
    >>> read_statement("select sum(x) from public.stock_movement where id = 1").summary
    'SELECT stock_movement'
    >>> read_statement("INSERT INTO orders (note) VALUES ('from here')").writes
    'rows'
    >>> read_statement("SELECT place_order(7)").writes
    'opaque'
    """
    if len(text) <= _CACHED:
        return _read_again(text)
    if len(text) <= _READ_IN_FULL:
        return _read(text)
    head = _read(text[:_READ_IN_FULL])
    return Statement(head.operation, head.table, "opaque")


def without_words(text: str) -> str:
    """Return a text without comments, whose strings are empty and whose odd names hold no semicolon."""
    pieces: list[str] = []
    at = 0
    closing: dict[str, list[int]] | None = None
    while (token := _TOKEN.search(text, at)) is not None:
        begin, end = token.span()
        instead = "''"
        if token["tag"] is None:
            instead = _without_words(token)
        else:
            closing = _dollars(text) if closing is None else closing
            places = closing[token["tag"]]
            later = bisect_left(places, end)
            if later < len(places):
                end += places[later] - begin
            else:  # nothing closes it: it is no quote
                end, instead = begin + 1, "$"
        pieces += text[at:begin], instead
        at = end
    return "".join((*pieces, text[at:]))


def _read(text: str) -> Statement:
    return read_bare(without_words(text))


def _dollars(text: str) -> dict[str, list[int]]:
    """Return where each tag between two dollar signs stands, from the left: what opens or closes a quote."""
    found: dict[str, list[int]] = {}
    parts, at = text.split("$"), 0
    for number, part in enumerate(parts):
        if 0 < number < len(parts) - 1 and _TAG.match(part):
            found.setdefault(part, []).append(at - 1)
        at += len(part) + 1
    return found


def read_bare(text: str, reads: frozenset[str] = READS, harmless: frozenset[str] = HARMLESS) -> Statement:
    """Read a statement without comments, whose strings are empty and whose odd names stand in double quotes.

    Parameters
    ----------
    text : str
        One statement; what is particular to a dialect has been taken out of it.
    reads : frozenset of str
        Operations that write nothing, upper case.
    harmless : frozenset of str
        Words before a parenthesis that change no row, lower case.
    """
    bare = text.strip().rstrip("; \n\t").lstrip("(; \n\t")
    if not bare:
        return Statement("EMPTY", "", "no")
    first = re.split(r"[\s(;]", bare, maxsplit=1)[0].upper() or "UNKNOWN"
    writing = _WRITE_WORD.findall(bare)
    operation = _introduced(writing) if first == "WITH" else first
    target = _TARGET.get(operation, _FROM).search(_FROM_INSIDE.sub("x", bare))
    table = _unqualified(target[1]) if target else ""
    if ";" in bare or len(writing) > 1:
        return Statement(operation, table, "opaque")
    if operation in _ENDS or operation in ("SAVEPOINT", "RELEASE"):
        return _transactional(operation, bare)
    if operation not in reads and operation not in _WRITERS:
        return Statement(operation, table, "opaque")
    return Statement(operation, table, _writes(operation, bare, first, bool(writing), harmless))


_read_again = lru_cache(maxsize=2048)(_read)


def _without_words(token: re.Match[str]) -> str:
    if token["name"]:
        return token["name"].replace(";", "_")
    return " " if token["comment"] else "''"


def _introduced(writing: list[str]) -> str:
    words = [word.split()[0].upper() for word in writing]
    return words[-1] if words else "SELECT"


def _transactional(operation: str, bare: str) -> Statement:
    savepoint = _SAVEPOINT.match(bare)
    if savepoint is None:
        prepared = re.search(r"\bprepared\b", bare, re.IGNORECASE) is not None
        return Statement(operation, "", "opaque" if prepared else "no", _ENDS.get(operation, ""))
    how = savepoint["how"].lower().split()[0]
    return Statement(
        operation, "", "no", "rollback to" if how == "rollback" else how, _unqualified(savepoint[2])
    )


def _writes(operation: str, bare: str, first: str, writing: bool, harmless: frozenset[str]) -> str:
    lower = bare.lower()
    if first == "WITH" and writing:
        return "opaque"
    if operation in ("INSERT", "UPDATE", "DELETE"):
        return "opaque" if "do update" in lower else "rows"
    if operation == "COPY":
        if re.search(r"\bfrom\s+(stdin|''|program)", lower):
            return "rows"
        return "opaque" if writing or not re.search(r"\bto\s+(stdout|''|program)", lower) else "no"
    if operation == "EXPLAIN":
        return "opaque" if writing and re.search(r"\banaly[sz]e\b", lower) else "no"
    if writing:
        return "opaque"
    if operation in ("SELECT", "VALUES", "TABLE", "DECLARE"):
        into = operation == "SELECT" and re.search(r"\binto\b", lower)
        return "opaque" if into or _calls_unknown(lower, harmless) else "no"
    return "no"


def _calls_unknown(lower: str, harmless: frozenset[str]) -> bool:
    """Tell whether a query calls a function that is not known to change nothing."""
    if "(" not in lower:
        return False
    aliases = set(re.findall(r"(?:\bas\s+|\)\s*)([\w$]+)\s*\(", lower)) | set(
        re.findall(r"(?:\bwith\s+(?:recursive\s+)?|,\s*)([\w$]+)\s*\([^()]*\)\s*as\b", lower)
    )
    return any(_unqualified(name) not in harmless and name not in aliases for name in _CALL.findall(lower))


def _unqualified(name: str) -> str:
    return name.split(".")[-1].strip().strip('"').lower()
