"""Serve ``module:app`` on a free port and print it: how the test services are started.

python serve.py waitress flask_shop:app
python serve.py uvicorn fastapi_shop:app
"""

import importlib
import socket
import sys


def main(server: str, where: str) -> None:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    module, _, name = where.partition(":")
    app = getattr(importlib.import_module(module), name)
    print(listener.getsockname()[1], flush=True)
    if server == "waitress":
        import waitress

        waitress.serve(app, sockets=[listener], threads=4, _quiet=True)
    else:
        import uvicorn

        uvicorn.Server(uvicorn.Config(app, log_level="critical")).run(sockets=[listener])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
