"""The lists of what is known to be harmless."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from perflab.shadow.sql import rewrite_names as names

FORMS = {"lag", "lead"}
DANGEROUS = [
    "nextval",
    "setval",
    "set_config",
    "pg_notify",
    "lo_create",
    "lo_unlink",
    "lo_import",
    "lo_export",
    "pg_read_file",
    "pg_write_file",
    "pg_ls_dir",
    "dblink",
    "query_to_xml",
    "cursor_to_xml",
    "table_to_xml",
    "schema_to_xml",
    "database_to_xml",
    "ts_stat",
    "pg_advisory_lock",
    "pg_terminate_backend",
    "pg_cancel_backend",
    "pg_reload_conf",
    "pg_logical_emit_message",
    "pg_switch_wal",
    "txid_current",
    "load_file",
    "sleep",
    "benchmark",
    "get_lock",
    "release_lock",
    "sys_exec",
]
REWRITTEN = {"nextval", "setval", "set_config"}


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_what_reaches_out_is_on_no_list(kind: str) -> None:
    """But for three whose arguments are checked."""
    assert set(DANGEROUS) & names.FUNCTIONS[kind] <= (REWRITTEN if kind == "postgresql" else set())
    assert names.FUNCTIONS["postgresql"] >= names.OF_TABLES


def test_functions_are_postgresqls_own(make_database: Callable[[str], str]) -> None:
    """Each is found in pg_catalog, none writes rows, and all that take a table's name are known to."""
    with psycopg.connect(make_database("SELECT 1")) as session:
        rows = session.execute(
            "SELECT proname, bool_or('regclass'::regtype = ANY (proargtypes)) FROM pg_proc"
            " WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY (%s) GROUP BY 1",
            (sorted(names.FUNCTIONS["postgresql"]),),
        ).fetchall()
        newer = session.info.server_version < 180000
    there = {name for name, _ in rows}
    missing = names.FUNCTIONS["postgresql"] - there
    assert missing <= {"any_value", "uuidv4", "uuidv7", "current_catalog"} or not newer, missing
    assert {name for name, of_table in rows if of_table} <= names.OF_TABLES


def test_no_function_can_have_the_words_before_parentheses(make_database: Callable[[str], str]) -> None:
    """PostgreSQL takes none of them for the name of a function without quotes."""
    with psycopg.connect(make_database("SELECT 1"), autocommit=True) as session:
        for word in sorted(names.BEFORE_PARENTHESIS["postgresql"]):
            with pytest.raises(psycopg.errors.SyntaxError):
                session.execute(
                    f"CREATE FUNCTION {word}(x text) RETURNS text LANGUAGE sql AS 'SELECT 1'".encode()
                )


def test_catalogues_hold_no_secrets_and_no_large_objects() -> None:
    """Neither passwords nor what large objects hold can be read."""
    assert (
        not {"pg_authid", "pg_shadow", "pg_largeobject", "pg_user_mapping", "pg_subscription"}
        & names.CATALOGS
    )
