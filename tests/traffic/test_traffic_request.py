"""Requests as templates."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perflab.errors import TrafficError
from perflab.traffic.request import Context, RequestTemplate

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def test_variables_are_filled_in_everywhere():
    """Path, header and body get the context's values."""
    # Given a template with a variable in each place
    template = RequestTemplate(
        "post",
        "/orders/${order_id}?n=${seq}",
        {"X-Note": "c=${canary}"},
        json={"text": "see ${canary}", "n": "${seq}", "id": "${order_id}", "plain": [1, None, True, "é"]},
    )
    # When it is built
    request = template.build(Context(canary="plc-1", seq=7, captured={"order_id": 12}))
    # Then every place holds its value; a text that is one variable only keeps the value's type
    assert request.method == "POST"
    assert request.path == b"/orders/12?n=7"
    assert request.headers == ((b"x-note", b"c=plc-1"), (b"content-type", b"application/json"))
    assert json.loads(request.body) == {
        "text": "see plc-1",
        "n": 7,
        "id": 12,
        "plain": [1, None, True, "é"],
    }


def test_random_and_uuid_repeat_with_the_seed():
    """The same seed fills in the same values; bounds are kept."""
    template = RequestTemplate("GET", "/p/${random:1:3}/${uuid}")
    first = [template.build(Context(random=random.Random(5))).path for _ in range(2)]
    assert first[0] == first[1]
    source = random.Random(1)
    drawn = {template.build(Context(random=source)).path.split(b"/")[2] for _ in range(200)}
    assert drawn == {b"1", b"2", b"3"}


@given(TEXTS)
def test_no_captured_text_escapes_its_place(text):
    """Whatever a server answered, it stays one path segment, one JSON text, one form field."""
    context = Context(captured={"x": text})
    # Given the same value in a URL, in JSON and in a form
    path = RequestTemplate("GET", "/a/${x}/b").build(context).path
    body = RequestTemplate("POST", "/", json={"k": "<${x}>", "whole": "${x}"}).build(context).body
    form = (
        RequestTemplate("POST", "/", {"Content-Type": "application/x-www-form-urlencoded"}, body="a=${x}&b=1")
        .build(context)
        .body
    )
    # Then each is still read as one value
    assert path.count(b"/") == 3
    assert not set(path) & set(b" \r\n?#")
    assert json.loads(body) == {"k": f"<{text}>", "whole": text}
    assert form.count(b"&") == 1
    assert form.count(b"=") == 2


def test_json_text_bodies_are_escaped_by_content_type():
    """A text body that says it is JSON stays JSON."""
    template = RequestTemplate("POST", "/", {"content-type": "application/json"}, body='{"a": "${x}"}')
    assert json.loads(template.build(Context(captured={"x": 'q"\n'})).body) == {"a": 'q"\n'}


@pytest.mark.parametrize("value", ["a\r\nx: y", "a\nb", "\x00"])
def test_headers_refuse_line_breaks_from_values(value):
    """A captured line break cannot add a header."""
    template = RequestTemplate("GET", "/", {"x-id": "${x}"})
    with pytest.raises(TrafficError, match="cannot stand in a header"):
        template.build(Context(captured={"x": value}))


def test_a_literal_mark_is_written_with_two_dollars():
    """``$${`` is ``${``."""
    assert RequestTemplate("POST", "/", body="$${x} ${seq}").build(Context(seq=3)).body == b"${x} 3"


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("/a?b=c#frag", ("", "", 0, b"/a?b=c")),
        ("http://Shop.test", ("http", "Shop.test", 80, b"/")),
        ("https://shop.test?x=1", ("https", "shop.test", 443, b"/?x=1")),
        ("http://[::1]:8080/ü", ("http", "::1", 8080, b"/%C3%BC")),
    ],
)
def test_urls_are_split(url, found):
    """Scheme, host, port and path come apart; fragments are never sent."""
    template = RequestTemplate("GET", url)
    assert (template.scheme, template.host, template.port, template.build(Context()).path) == found


@pytest.mark.parametrize(
    "url",
    [
        "orders",
        "//evil/x",
        "ftp://a/b",
        "http://a@b/",
        "http://${x}/",
        "http://a:99999/",
        "http://a:0/",
        "http://a b/",
        "http://a\\@b/",
        "/a b",
        "/a\r\nx",
        "http://",
        "/x${",
    ],
)
def test_wrong_urls_are_refused(url):
    """What is not clearly one host and path is no URL."""
    with pytest.raises(TrafficError):
        RequestTemplate("GET", url)


@pytest.mark.parametrize(
    ("method", "headers", "json_body", "body", "match"),
    [
        ("CONNECT", {}, None, None, "cannot be sent"),
        ("G T", {}, None, None, "cannot be sent"),
        ("GET", {"Content-Length": "3"}, None, None, "written by the load engine"),
        ("GET", {"traceparent": "3"}, None, None, "written by the load engine"),
        ("GET", {"a b": "3"}, None, None, "not a header name"),
        ("GET", {"a": "1", "A": "2"}, None, None, "given twice"),
        ("GET", {"a": "1\r\nb: 2"}, None, None, "line break"),
        ("POST", {}, {"a": 1}, "x", "both 'json' and 'body'"),
        ("POST", {}, {"a": float("nan")}, None, "cannot be sent as JSON"),
        ("POST", {}, {"a": "${random:5:1}"}, None, "5 is above 1"),
        ("POST", {}, {"a": "${env:HOME}"}, None, "is no variable"),
    ],
)
def test_wrong_requests_are_refused(method, headers, json_body, body, match):
    """Each mistake is named."""
    with pytest.raises(TrafficError, match=match):
        RequestTemplate(method, "/", headers, json_body, body)
