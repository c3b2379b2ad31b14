"""Who is at the other end of a call, by its attributes."""

from __future__ import annotations

import json

import pytest

from perflab.analysis.peer import Peer, queue_name, read_peers


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"db.system.name": "postgresql", "db.namespace": "shop"}, Peer("database", "postgresql shop")),
        ({"db.system": "mysql", "db.name": "old"}, Peer("database", "mysql old")),
        ({"db.system.name": "mongodb"}, Peer("database", "mongodb")),
        ({"db.system.name": "redis", "db.namespace": "0"}, Peer("cache", "redis")),
        ({"peer.service": "bank", "server.address": "10.0.0.1"}, Peer("external", "bank")),
        ({"net.peer.name": "bank.example"}, Peer("external", "bank.example")),
        ({"server.address": 7}, Peer("external", "7")),
        ({}, Peer("external", "unknown peer of 'GET x'")),
    ],
)
def test_read_peers(attributes, expected):
    """New names before older ones, stores before addresses; strange types do no harm."""
    assert read_peers([json.dumps(attributes)], ["client"], ["GET x"]) == [expected]


@pytest.mark.parametrize("text", ["", "[1]", "{", "null"])
def test_attributes_that_cannot_be_read(text):
    """Then the peer is unknown."""
    assert read_peers([text], ["client"], ["GET x"]) == [Peer("external", "unknown peer of 'GET x'")]


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("", "send mails", "queue mails"),
        ("", "process mails", "queue mails"),
        ("", "poll", "queue poll"),
        ('{"messaging.destination": "old"}', "send x", "queue old"),
    ],
)
def test_queue_name(text, name, expected):
    """Producer and consumer meet at one node."""
    assert queue_name(text, name) == expected
