"""Names of columns that look personal."""

from __future__ import annotations

import pytest
from mariadb_server import MariaServer

from perflab.errors import ConfigError
from perflab.shadow.prepare.personal import looks_personal, mariadb_columns, require_declared

PERSONAL = (
    "email user_email contactEmail phone2 FirstName last_name id_card idCardNo API_KEY address_line_1"
    " card_number PASSWORD access_token 姓名 联系手机 身份证号 iban wechat"
)


@pytest.mark.parametrize("name", PERSONAL.split())
def test_personal_names(name: str) -> None:
    """However they are written."""
    assert looks_personal(name, "text")


@pytest.mark.parametrize(
    "name", ["id", "total", "cache_key", "status", "created_at", "emailed", "filename", "mapping"]
)
def test_other_names(name: str) -> None:
    """A word inside another one is none."""
    assert not looks_personal(name, "text")


def test_types_and_keys_count() -> None:
    """A flag says nothing of a person, nor does the number of a row; a text key may."""
    assert not looks_personal("email_verified", "boolean")
    assert not looks_personal("address_id", "integer", is_key=True)
    assert looks_personal("email", "text", is_key=True)
    assert looks_personal("phone", "bigint")


def test_columns_of_mariadb_are_read(mariadb: MariaServer) -> None:
    """A flag and an id are not personal; views do not count; what is said is left alone."""
    with mariadb.connect() as session, session.cursor() as cursor:
        cursor.execute("CREATE DATABASE personal")
        cursor.execute(
            "CREATE TABLE personal.people"
            " (address_id int PRIMARY KEY, email varchar(9), email_sent tinyint(1))"
        )
        cursor.execute("CREATE VIEW personal.mails AS SELECT email FROM personal.people")
        columns = mariadb_columns(mariadb.admin_url, "personal")
        cursor.execute("DROP DATABASE personal")
    with pytest.raises(ConfigError, match=r"1 columns look personal and have no mask: people.email; declare"):
        require_declared(columns, ())
    require_declared(columns, ["people.email"])
