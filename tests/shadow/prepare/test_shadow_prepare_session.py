"""Notes on a shadow database."""

from __future__ import annotations

from contextlib import closing

from prepared_server import url_of

from perflab.demo.stores import PostgresServer
from perflab.shadow.prepare.session import open_session, read_notes, server_identity, write_notes


def test_notes_are_read_again(prepared: PostgresServer) -> None:
    """What was noted comes back; a comment of before, and somebody else's, are told apart."""
    with closing(open_session(prepared.admin_dsn)) as session:
        # Given
        before = read_notes(session, "shop_shadow")
        assert before is not None
        assert before["of"] == "shop"

        # Then
        write_notes(session, "shop_shadow", {"of": "a'b", "rows": {"数": 1}})
        assert read_notes(session, "shop_shadow") == {"of": "a'b", "rows": {"数": 1}}
        session.execute("COMMENT ON DATABASE shop_shadow IS 'perflab shadow of \"shop\"'")
        assert read_notes(session, "shop_shadow") == {}
        write_notes(session, "shop_shadow", before)
        assert read_notes(session, "shop") is None
        assert read_notes(session, "nowhere") is None


def test_a_server_is_known_by_its_identity(preparing: PostgresServer, postgres: PostgresServer) -> None:
    """Two databases of one server have one identity, two servers have two."""
    with (
        closing(open_session(preparing.admin_dsn)) as one,
        closing(open_session(url_of(preparing, "shop"))) as same,
        closing(open_session(postgres.admin_dsn)) as other,
    ):
        assert server_identity(one) == server_identity(same) != server_identity(other)
