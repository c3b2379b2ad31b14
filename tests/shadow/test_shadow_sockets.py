"""The last net: what no hook covers cannot leave a service from marked work, through any Python socket."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from attached_stage import Service, Stage, stage_in


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage_in(tmp_path_factory.mktemp("stage")) as opened:
        yield opened


@pytest.fixture(scope="module")
def shop(stage: Stage) -> Service:
    return stage.serve("flask_shop:app")


@pytest.fixture(scope="module")
def api(stage: Stage) -> Service:
    return stage.serve("fastapi_shop:app", service="api")


@pytest.mark.parametrize("client", ["urllib", "http.client", "socket", "datagram"])
def test_uncovered_clients_are_closed_to_marked_work(stage: Stage, shop: Service, client: str):
    """Even a peer that covered clients may call is out of reach; ordinary work reaches it as before."""
    heard = len(stage.echo.received)
    said = shop.call(client, stage.echo.url, stage.marked())
    assert said["error"] == "perflab.errors.ShadowError"
    assert "a driver or client that perflab does not cover tried to" in said["message"]
    assert len(stage.echo.received) == heard
    assert shop.call(client, stage.echo.url)["status"] == 200


def test_asyncio_streams_are_closed_to_marked_work(stage: Stage, api: Service):
    """A connection of the event loop's own is refused too."""
    heard = len(stage.echo.received)
    assert "tried to connect" in api.call("streams", stage.echo.url, stage.marked())["message"]
    assert len(stage.echo.received) == heard
    assert api.call("streams", stage.echo.url)["status"] == 200


def test_a_connection_opened_before_is_refused_at_the_send(stage: Stage, shop: Service):
    """A pooled connection of ordinary work is of no use to marked work, and is still good afterwards."""
    assert shop.call("kept socket", stage.echo.url)["status"] == 200
    heard = len(stage.echo.received)
    assert "tried to send" in shop.call("kept socket", stage.echo.url, stage.marked())["message"]
    assert len(stage.echo.received) == heard
    assert shop.call("kept socket", stage.echo.url)["status"] == 200


def test_local_datagrams_pass(stage: Stage, shop: Service):
    """A line of log to this machine's own daemon is no store."""
    assert shop.call("local datagram", stage.echo.url, stage.marked())["status"] == 200


WAYS = """
import asyncio, os, socket, ssl, tempfile, threading
token, address, certificate = sys.argv[1:]
host, _, port = address.partition(":")
peer = (host, int(port))

def opened():
    return socket.create_connection(peer)

def said(name, function):
    try:
        function()
        print(name, "passed")
    except Exception as error:
        print(name, type(error).__name__)

def accepted():
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    return client, server

def tls():
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate)
    client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_side.check_hostname, client_side.verify_mode = False, ssl.CERT_NONE
    client, server = accepted()
    answers = []
    answer = lambda: answers.append(server_side.wrap_socket(server, server_side=True))
    thread = threading.Thread(target=answer)
    thread.start()
    wrapped = client_side.wrap_socket(client)
    thread.join()
    return wrapped, answers[0]

def unix():
    path = os.path.join(tempfile.mkdtemp(), "s")
    listener = socket.socket(socket.AF_UNIX); listener.bind(path); listener.listen()
    return path

kept, (client, server), (tls_client, tls_server), path = opened(), accepted(), tls(), unix()
pair = socket.socketpair()
file = kept.makefile("wb")
plain, context = opened(), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

def local_datagram():
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); receiver.bind(path + "d")
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); sender.connect(path + "d"); sender.send(b"x")

def written():
    file.write(b"x"); file.flush()

def connected_unix():
    socket.socket(socket.AF_UNIX).connect(path)

async def stream():
    await asyncio.open_connection(*peer)

def work():
    said("connect", opened)
    said("connect_ex", lambda: socket.socket().connect_ex(peer))
    said("connect unix", connected_unix)
    said("send", lambda: kept.send(b"x"))
    said("sendall", lambda: kept.sendall(b"x"))
    said("sendmsg", lambda: kept.sendmsg([b"x"]))
    said("sendfile", lambda: kept.sendfile(open(certificate, "rb")))
    said("makefile", written)
    said("tls send", lambda: tls_client.send(b"x"))
    said("tls sendall", lambda: tls_client.sendall(b"x"))
    said("tls write", lambda: tls_client.write(b"x"))
    said("tls begin", lambda: context.wrap_socket(plain))
    said("sendto", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 9)))
    said("stream", lambda: asyncio.run(stream()))
    said("answer", lambda: server.sendall(b"x"))
    said("tls answer", lambda: tls_server.sendall(b"x"))
    said("pair", lambda: pair[0].sendall(b"x"))
    said("local datagram", local_datagram)

marked(token, work)
print("--")
said("connect", opened)
said("send", lambda: client.sendall(b"x"))
said("tls send", lambda: tls_client.sendall(b"x"))
said("makefile", written)
"""
REFUSED = (
    "connect, connect_ex, connect unix, send, sendall, sendmsg, sendfile, makefile, tls send, tls sendall, "
    "tls write, tls begin, sendto, stream"
)
PASSED = "answer, tls answer, pair, local datagram"


def certificate(directory: Path) -> Path:
    """Make a certificate for this minute."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "peer")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    path = directory / "peer.pem"
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(key.private_bytes(*form) + made.public_bytes(serialization.Encoding.PEM))
    return path


def test_every_way_out_is_closed_to_marked_work_and_open_to_others(stage: Stage, tmp_path: Path):
    """Each method that connects or sends, plain, TLS, file-like, Unix or asyncio; answers to callers pass."""
    token = stage.marked()["tracestate"].partition("=")[2]
    said = stage.script(WAYS, token, stage.echo.address, str(certificate(tmp_path)))
    work, _, ordinary = said.stdout.partition("--\n")
    found = dict(line.rsplit(" ", 1) for line in work.splitlines())
    assert said.stderr == ""
    assert [name for name in found if found[name] == "ShadowError"] == REFUSED.split(", ")
    assert [name for name in found if found[name] == "passed"] == PASSED.split(", ")
    assert ordinary.splitlines() == ["connect passed", "send passed", "tls send passed", "makefile passed"]


def test_a_socket_that_cannot_be_remembered_still_connects(stage: Stage):
    """An odd subclass of socket is no reason for ordinary work to fail."""
    code = """
import socket
from perflab.shadow.scope import process
class Odd(socket.socket):
    __hash__ = None
host, _, port = sys.argv[1].partition(":")
Odd().connect((host, int(port)))
print(dict(process.ledger.take()["stepped_aside"]))
"""
    said: subprocess.CompletedProcess[str] = stage.script(code, stage.echo.address)
    assert said.stdout == "{'sockets: a socket that cannot be remembered': 1}\n", said.stderr


def test_the_agents_own_traffic_passes_in_a_shadow_consumer(stage: Stage):
    """A consumer all of whose work is marked still reports, exports and reads its list, by host name too."""
    port = stage.receiver.collector.address.rpartition(":")[2]
    code = """
import time, urllib.request
from perflab.shadow.scope import process, begin, finish
from opentelemetry.trace import SpanKind
finish(begin("work", SpanKind.CONSUMER, {}))
try:
    urllib.request.urlopen("http://" + sys.argv[1], timeout=1)
except Exception as error:
    print(type(error).__name__, flush=True)
sys.stdin.readline()
"""
    environment = stage.environment(
        service="worker", shadow_consumer=True, target={"collector": f"localhost:{port}"}
    )
    process = stage.interactive(code, stage.echo.address, environment=environment)
    assert process.stdout.readline() == "ShadowError\n"
    process.communicate("\n", timeout=20)
    fleet = stage.receiver.fleet
    assert "worker" in fleet.services()
    assert fleet.believing(stage.run_key.tag) >= {"worker"}
    spans = stage.receiver.spans()
    assert list(spans[spans.service == "worker"].name) == ["work"]
