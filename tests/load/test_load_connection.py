"""Kept connections."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from perflab.load.connection import ConnectFailedError, Connections, Exchange, Origin
from perflab.load.egress import AllowList, parse_address
from perflab.load.http1 import AnswerReader


def request(path):
    return f"GET {path} HTTP/1.1\r\nhost: a\r\n\r\n".encode()


async def ask(connection, path):
    """Do one exchange and return its outcome and status."""
    ended = asyncio.get_running_loop().create_future()
    reader = AnswerReader("GET", keep_body=True)
    connection.send(Exchange(request(path), reader, lambda *outcome: ended.set_result(outcome)))
    outcome, _ = await asyncio.wait_for(ended, 10)
    return outcome, reader.status


def with_connections(target, work, bound=4, idle_s=4.0):
    """Run some work with connections to a target."""

    async def run():
        allowed = AllowList([target.address])
        await allowed.pin()
        connections = Connections(allowed, bound, 2.0, idle_s)
        try:
            return await work(connections, Origin(allowed.addresses[0], tls=False))
        finally:
            connections.close()

    return asyncio.run(run())


def test_connections_are_used_again_oldest_first(target):
    """What comes back is kept, and the one idle for longest goes first."""

    async def work(connections, origin):
        both = []
        for _ in range(2):
            assert connections.reserve()
            both.append(await connections.connect(origin))
        for connection in both:
            assert await ask(connection, "/ok") == ("answered", 200)
        assert [connections.take(origin) for _ in range(3)] == [*both, None]
        assert (connections.made, connections.open) == (2, 2)

    with_connections(target, work)
    assert target.connections == 2


@pytest.mark.parametrize("path", ["/last", "/close", "/reset", "/half", "/nonsense"])
def test_a_connection_that_ended_is_off_the_count(target, path):
    """However it ends, its place is free again."""

    async def work(connections, origin):
        assert connections.reserve()
        await ask(await connections.connect(origin), path)
        assert connections.take(origin) is None
        assert connections.open == 0

    with_connections(target, work)


def test_the_bound_holds(target):
    """No place beyond the bound; a failed connection gives its place back."""

    async def work(connections, origin):
        assert connections.reserve()
        assert connections.reserve()
        assert not connections.reserve()
        with pytest.raises(ConnectFailedError) as caught:
            await connections.connect(Origin(parse_address("127.0.0.1:1"), tls=False))
        assert caught.value.outcome == "target_refused"
        assert connections.reserve()

    with_connections(target, work, bound=2)


def test_idle_connections_are_not_used_for_ever(target):
    """Beyond the idle limit a connection is closed instead of used."""

    async def work(connections, origin):
        connections.reserve()
        connection = await connections.connect(origin)
        await ask(connection, "/ok")
        connection.idle_since_ns -= 10_000_000_000
        assert connections.take(origin) is None
        assert connections.open == 0

    with_connections(target, work)


def test_a_connection_the_server_closed_meanwhile_is_not_used(target):
    """Also when the loop has not seen it yet: the socket is asked."""

    async def work(connections, origin):
        connections.reserve()
        connection = await connections.connect(origin)
        await ask(connection, "/ok")
        connection.idle_since_ns = 0
        idle_ns = 100_000_000
        assert connection.is_usable(idle_ns)
        # When the server closes, and the loop here gets no turn to see it
        target.stop()
        for session in target.sessions:
            session.transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        # Then the connection is not used again
        deadline = time.monotonic() + 5
        while connection.is_usable(idle_ns) and time.monotonic() < deadline:
            pass
        assert not connection.is_usable(idle_ns)

    with_connections(target, work)


@pytest.fixture
def certificate(tmp_path):
    """Make a certificate for localhost that nobody vouches for but itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "localhost.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.mark.parametrize("trusted", [True, False])
def test_certificates_are_verified(certificate, monkeypatch, trusted):
    """A server that is vouched for is spoken to; one that is not gets no byte of a request."""
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    received = []

    async def serve(reader, writer):
        received.append(await reader.read(100))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async def work():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        allowed = AllowList([f"localhost:{server.sockets[0].getsockname()[1]}"])
        await allowed.pin()
        connections = Connections(allowed, 1, 5.0, 4.0)
        origin = Origin(allowed.addresses[0], tls=True)
        connections.reserve()
        async with server:
            if trusted:
                assert await ask(await connections.connect(origin), "/") == ("answered", 200)
                connections.close()
            else:
                with pytest.raises(ConnectFailedError) as caught:
                    await connections.connect(origin)
                assert caught.value.outcome == "tls_failed"
        assert connections.open == 0

    asyncio.run(work())
    assert any(received) is trusted
