"""Serve ``module:app`` from two forked workers that share a listener: what gunicorn's prefork does.

The parent loads the application and has threads, executors and a connection of its own before it forks.
"""

import concurrent.futures
import importlib
import os
import signal
import socket
import sys


def main(where: str) -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    module, _, name = where.partition(":")
    app = getattr(importlib.import_module(module), name)
    concurrent.futures.ThreadPoolExecutor(1).submit(print, "warm", file=sys.stderr).result()
    workers = [work(app, listener) for _ in range(2)]
    print(listener.getsockname()[1], flush=True)
    signal.signal(signal.SIGTERM, lambda *_: [os.kill(worker, signal.SIGTERM) for worker in workers])
    for worker in workers:
        os.waitpid(worker, 0)


def work(app, listener: socket.socket) -> int:
    worker = os.fork()
    if worker == 0:
        import waitress

        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        waitress.serve(app, sockets=[listener], threads=1, _quiet=True)
        sys.exit(0)
    return worker


if __name__ == "__main__":
    main(sys.argv[1])
