"""A Flask service as a business team might write it, with one route for each way of calling a peer."""

import concurrent.futures
import contextvars
import http.client
import io
import logging
import os
import queue
import socket
import threading
import urllib.request
from urllib.parse import urlsplit

import httpx
import requests
from flask import Blueprint, Flask, Response, abort, jsonify, request, send_file, stream_with_context

app = Flask(__name__)
executor = concurrent.futures.ThreadPoolExecutor(1)
session = requests.Session()
closed: list[str] = []
kept: dict[str, object] = {}
user = contextvars.ContextVar("user", default="nobody")
orders = Blueprint("orders", __name__, url_prefix="/orders")


@app.before_request
def turn_away():
    user.set(request.args.get("user", "nobody"))
    if request.args.get("early"):
        return Response("early", 418)
    return None


@app.get("/items/<int:number>")
def item(number: int):
    return jsonify(number=number, cookie=request.cookies.get("c", ""))


@orders.post("/<order_id>/lines/<path:rest>")
def lines(order_id: str, rest: str):
    return {"order": order_id, "rest": rest, "sent": request.get_data(as_text=True)}, 201


app.register_blueprint(orders)


@app.get("/stream")
def stream():
    def produce():
        try:
            for number in range(3):
                yield f"{request.args.get('word', 'part')} {number}\n"
                if request.args.get("fail"):
                    raise RuntimeError("the stream broke")
        finally:
            closed.append(request.args.get("word", ""))

    return Response(stream_with_context(produce()), mimetype="text/plain")


@app.get("/closed")
def closings():
    return jsonify(closed)


@app.get("/file")
def file():
    return send_file(io.BytesIO(b"x" * 70_000), mimetype="application/octet-stream", download_name="f")


@app.get("/boom")
def boom():
    raise RuntimeError("boom")


@app.get("/gone")
def gone():
    abort(410)


@app.get("/within")
def within():
    """Call this application from within itself."""
    return app.test_client().get(f"/call?client=requests&url={request.args['url']}").data


@app.get("/call")
def call():
    """Call a peer; say what came back or why it was not called."""
    client, url = request.args["client"], request.args["url"]
    headers = {"X-Own": "kept"}
    if request.args.get("own"):
        headers |= {"tracestate": "vendor=1;x,other=2", "baggage": "user=7;ttl=1"}
    try:
        status, body = CALLS[client](url, headers)
    except Exception as error:
        return jsonify(error=f"{type(error).__module__}.{type(error).__name__}", message=str(error))
    return jsonify(status=status, body=body)


def patience_s(url: str) -> float:
    """Say how long a peer's answer is waited for: not long where it is meant to come too late."""
    return 0.5 if urlsplit(url).path == "/slow" else 10.0


def with_requests(url: str, headers: dict[str, str]):
    answer = session.get(url, headers=headers, timeout=(10, patience_s(url)))
    return answer.status_code, [answer.text, answer.url, sorted(answer.request.headers)]


def with_httpx(url: str, headers: dict[str, str]):
    with httpx.Client(follow_redirects=True, timeout=httpx.Timeout(10, read=patience_s(url))) as client:
        answer = client.get(url, headers=headers)
    return answer.status_code, [answer.text, str(answer.url), sorted(answer.request.headers)]


def with_urllib(url: str, headers: dict[str, str]):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.status, answer.read().decode()


def with_http_client(url: str, headers: dict[str, str]):
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    connection.request("GET", "/")
    return connection.getresponse().status, ""


def with_socket(url: str, headers: dict[str, str]):
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return 200, connection.recv(100).decode()


def with_kept_socket(url: str, headers: dict[str, str]):
    """Use a connection that was opened by an earlier request, as a pool would."""
    if "socket" not in kept:
        kept["socket"] = socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=10)
    connection = kept["socket"]
    connection.sendall(b"GET /kept HTTP/1.1\r\nHost: x\r\n\r\n")
    return 200, connection.recv(10_000).decode()


def with_datagram(url: str, headers: dict[str, str]):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        datagram.sendto(b"count:1", ("192.0.2.1", 8125))
    return 200, "sent"


def with_local_datagram(url: str, headers: dict[str, str]):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        datagram.sendto(b"<14>a line of log", ("127.0.0.1", 9))
    return 200, "sent"


def in_thread(url: str, headers: dict[str, str]):
    return _answer_of(lambda run: threading.Thread(target=run).start(), url)


def in_timer(url: str, headers: dict[str, str]):
    return _answer_of(lambda run: threading.Timer(0.01, run).start(), url)


def in_executor(url: str, headers: dict[str, str]):
    return executor.submit(with_requests, url, {}).result(5)


def in_map(url: str, headers: dict[str, str]):
    return list(executor.map(with_requests, [url, url], [{}, {}]))[1]


def _answer_of(start, url: str):
    answers: queue.Queue = queue.Queue()

    def run():
        try:
            answers.put(with_requests(url, {}))
        except Exception as error:
            answers.put(error)

    start(run)
    answer = answers.get(timeout=5)
    if isinstance(answer, Exception):
        raise answer
    return answer


CALLS = {
    "requests": with_requests,
    "httpx": with_httpx,
    "urllib": with_urllib,
    "http.client": with_http_client,
    "socket": with_socket,
    "kept socket": with_kept_socket,
    "datagram": with_datagram,
    "local datagram": with_local_datagram,
    "thread": in_thread,
    "timer": in_timer,
    "executor": in_executor,
    "map": in_map,
}


@app.get("/import/<name>")
def late_import(name: str):
    try:
        __import__(name)
    except Exception as error:
        return jsonify(error=type(error).__name__)
    return jsonify(imported=name)


@app.get("/logged")
def logged():
    logging.getLogger("shop").warning("a line")
    return "ok"


class Ahead:
    """A layer of the application that answers some requests itself, as WSGI allows: a list, no length."""

    def __init__(self, inner):
        self.inner = inner

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] != "/health":
            return self.inner(environ, start_response)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"well"]


app.wsgi_app = Ahead(app.wsgi_app)


class Around:
    """A middleware around the whole application, which reads what the application set."""

    def __init__(self, inner):
        self.inner = inner

    def __call__(self, environ, start_response):
        seen = []

        def start(status, headers, exc_info=None):
            return start_response(status, [*headers, ("X-Around", str(len(seen)))], exc_info)

        body = self.inner(environ, start)
        logging.getLogger("around").info("served for %s", user.get())
        kept["user"] = user.get()
        return body


@app.get("/user")
def last_user():
    return jsonify(kept.get("user"))


wrapped = Around(app)


@app.get("/pid")
def pid():
    return jsonify(os.getpid())
