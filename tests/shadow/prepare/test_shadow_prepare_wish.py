"""What making a shadow would change is told before; nothing is touched by looking."""

from __future__ import annotations

from contextlib import closing

import pytest
from live_production import SAMPLE, wish
from prepared_server import rights

from perflab.demo.stores import PostgresServer
from perflab.errors import ConfigError, ShadowError
from perflab.shadow.prepare import plan_postgresql
from perflab.shadow.prepare.session import open_session


def test_a_plan_says_everything_and_changes_nothing(live: PostgresServer) -> None:
    """What is built, how many sessions, which rows, and what each choice takes."""
    before = rights(live)
    plan = plan_postgresql(wish(live, sample=SAMPLE, app_roles=["pg_monitor"]))
    assert (plan.build, plan.exists, plan.separate, plan.keep_out) == (True, False, False, "")
    assert plan.limit == 49
    assert plan.sample is not None
    assert plan.sample.wanted == {"public.visits": 1, "public.countries": None}
    assert 'GRANT CONNECT ON DATABASE "shop" TO "pg_monitor"' in plan.closing_statements
    assert plan.host_rules.path.endswith("pg_hba.conf")
    assert rights(live) == before


def test_extensions_another_server_lacks_are_told(live: PostgresServer, postgres: PostgresServer) -> None:
    """They are left out; one both have is not."""
    with closing(open_session(live.admin_dsn, "shop")) as session:
        session.execute("CREATE EXTENSION vector")
        plan = plan_postgresql(wish(postgres, source_dsn=live.admin_dsn))
        session.execute("DROP EXTENSION vector")
    assert plan.separate
    assert plan.missing_extensions == ()


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"limit": 0}, ConfigError, "at least one session"),
        ({"shadow": "shop"}, ShadowError, "needs a name of its own"),
        ({"settings": {"x": "1"}}, ConfigError, "no setting 'x'"),
        ({"production": "nowhere"}, ShadowError, 'database "nowhere" does not exist'),
        ({"role": ""}, ConfigError, "names no login"),
    ],
)
def test_wishes_that_cannot_be(
    live: PostgresServer, changes: dict[str, object], kind: type[Exception], message: str
) -> None:
    """Are refused in plain words."""
    with pytest.raises(kind, match=message):
        plan_postgresql(wish(live, **changes))
