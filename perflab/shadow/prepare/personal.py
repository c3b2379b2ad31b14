"""Which columns look as if they held something about a person, by their names.

A guess, and on the safe side: what it finds is not copied unless a mask is declared for it or somebody says
that it may be copied as it is. What it does not find may be personal all the same (free text, JSON).
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Collection, Iterable

from perflab.errors import ConfigError
from perflab.shadow.stores import place

_WORDS = frozenset(
    {
        "account",
        "addr",
        "address",
        "avatar",
        "bank",
        "bic",
        "birth",
        "birthdate",
        "birthday",
        "card",
        "cell",
        "city",
        "contact",
        "cvc",
        "cvv",
        "dob",
        "email",
        "ethnicity",
        "fax",
        "firstname",
        "fullname",
        "gender",
        "geo",
        "iban",
        "idcard",
        "ip",
        "lastname",
        "lat",
        "latitude",
        "license",
        "lng",
        "lon",
        "longitude",
        "maiden",
        "mail",
        "mobile",
        "msisdn",
        "name",
        "nationality",
        "nick",
        "nickname",
        "openid",
        "passphrase",
        "passport",
        "passwd",
        "password",
        "phone",
        "pin",
        "plate",
        "postcode",
        "pwd",
        "recipient",
        "religion",
        "salary",
        "salt",
        "secret",
        "sex",
        "signature",
        "sms",
        "ssn",
        "street",
        "surname",
        "tax",
        "tel",
        "telephone",
        "token",
        "unionid",
        "username",
        "vat",
        "wechat",
        "weixin",
        "whatsapp",
        "zip",
        "zipcode",
    }
)
_PAIRS = (
    "idcard",
    "idno",
    "taxid",
    "nationalid",
    "bankaccount",
    "firstname",
    "lastname",
    "realname",
    "apikey",
    "privatekey",
)
_CHINESE = (
    "姓名",
    "名字",
    "手机",
    "电话",
    "邮箱",
    "邮件",
    "地址",
    "身份证",
    "证件",
    "银行卡",
    "卡号",
    "密码",
    "微信",
    "生日",
    "护照",
)
_NEVER = frozenset({"boolean", "uuid"})
_NUMBERS = frozenset({"smallint", "integer", "bigint"})


def looks_personal(column: str, type_name: str, *, is_key: bool = False) -> bool:
    """Guess from a column's name and type.

    Parameters
    ----------
    column : str
        Its name: ``user_email``, ``firstName``, ``手机号``.
    type_name : str
        As ``format_type`` writes it.
    is_key : bool
        Whether it is part of a primary or foreign key: a number there is an id.

    Examples
    --------
    >>> looks_personal("customerEmail", "text"), looks_personal("email_verified", "boolean")
    (True, False)
    >>> looks_personal("address_id", "bigint", is_key=True), looks_personal("手机号", "text")
    (False, True)
    """
    if type_name in _NEVER or (is_key and type_name in _NUMBERS):
        return False
    if any(word in column for word in _CHINESE):
        return True
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", column)]
    joined = "".join(words)
    return bool(_WORDS & set(words)) or any(pair in joined for pair in _PAIRS)


def require_declared(columns: Iterable[tuple[str, str, bool]], said: Collection[str]) -> None:
    """Refuse columns that look personal and that nothing is said about.

    Parameters
    ----------
    columns : iterable of (str, str, bool)
        What each is called, with its table; its type; whether it is part of a key.
    said : collection of str
        Columns that have a mask or may be copied as they are, with their table.

    Raises
    ------
    ConfigError
        With a list of them.
    """
    personal = [
        name
        for name, type_name, is_key in columns
        if name not in said and looks_personal(name.rpartition(".")[2], type_name, is_key=is_key)
    ]
    if personal:
        raise ConfigError(
            f"{len(personal)} columns look personal and have no mask: {', '.join(personal)}; declare one for"
            " each under sample.masks in perflab.toml, or name with --unmasked those that may be copied"
            " as they are"
        )


def mariadb_columns(url: str, database: str) -> list[tuple[str, str, bool]]:
    """Return the columns of a MariaDB database as `require_declared` takes them.

    Raises
    ------
    ConfigError
        If the server cannot be reached, or does not let the login read its catalogue.
    """
    pymysql = importlib.import_module("pymysql")  # untyped, and needed by few
    there = place(url)
    try:
        session = pymysql.connect(
            host=there.host, port=there.port, user=there.user, password=there.password, connect_timeout=5
        )
    except pymysql.MySQLError as error:
        raise ConfigError(f"production cannot be read: {error.args[-1]}") from error
    with session, session.cursor() as cursor:
        cursor.execute(
            "SELECT CONCAT(c.table_name, '.', c.column_name),"
            " IF(c.column_type = 'tinyint(1)', 'boolean',"
            " IF(c.data_type LIKE '%%int', 'bigint', c.data_type)),"
            " c.column_key <> '' FROM information_schema.columns c JOIN information_schema.tables t"
            " ON t.table_schema = c.table_schema AND t.table_name = c.table_name"
            " AND t.table_type = 'BASE TABLE' WHERE c.table_schema = %s"
            " ORDER BY c.table_name, c.ordinal_position",
            (database,),
        )
        return [(str(name), str(kind), bool(key)) for name, kind, key in cursor.fetchall()]
