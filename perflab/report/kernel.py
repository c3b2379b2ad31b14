"""A Jupyter kernel that is this interpreter, leaves nothing at home, and can be killed from any thread."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

_LONGEST_SOCKET_PATH = 80


class OwnKernel(AsyncKernelManager):
    """A kernel manager whose specification exists only in memory.

    Its sockets, connection file and every folder Jupyter and IPython like to make lie in one folder that
    the caller owns and deletes.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._made_clients: list[Any] = []

    @classmethod
    def in_folder(cls, folder: Path) -> OwnKernel:
        """Make a manager whose files lie in ``folder``; nothing is started yet."""
        kernel = cls(kernel_name="python3", connection_file=str(folder / "kernel.json"))
        kernel._kernel_spec = KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            display_name="perflab",
            language="python",
            env={
                "IPYTHONDIR": str(folder / "ipython"),
                "JUPYTER_CONFIG_DIR": str(folder / "config"),
                "JUPYTER_DATA_DIR": str(folder / "data"),
                "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
                "MPLCONFIGDIR": str(folder / "matplotlib"),
                "PLOTLY_RENDERER": "plotly_mimetype",
                "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            },
        )
        if len(str(folder)) <= _LONGEST_SOCKET_PATH:
            kernel.transport = "ipc"  # no port, and no other user of the machine can connect
            kernel.ip = str(folder / "socket")
        return kernel

    def client(self, **options: Any) -> Any:
        """Make a client and remember it, so that `close` can end its threads."""
        client = super().client(**options)
        self._made_clients.append(client)
        return client

    def kill(self) -> None:
        """Kill the kernel's whole process group; harmless before its start and after its end."""
        process = getattr(self.provisioner, "process", None)
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(Exception):
            process.wait(timeout=5)

    def close(self) -> None:
        """Close the clients' channels and the sockets."""
        for client in self._made_clients:
            with contextlib.suppress(RuntimeError):
                client.stop_channels()
        if not self.context.closed:
            self.context.destroy(linger=0)
