"""Start the agent in an attached process. `perflab attach` puts this directory first on PYTHONPATH.

Python imports a module of this name at start-up, before the service's own code. Another
``sitecustomize`` that this one hides is imported afterwards, as it would have been, whatever became of the
agent. A child process of the service may run another Python, which has no perflab: it is left alone.
"""

import importlib.machinery
import importlib.util
import os
import sys


def _attach() -> None:
    config = os.environ.get("PERFLAB_AGENT", "")
    if not config:
        return
    try:
        from perflab.shadow.agent import start
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "perflab":
            return
        sys.stderr.write("perflab: this process is not attached: %s\n" % error)  # noqa: UP031 - any Python
        return
    try:
        start(config)
    except Exception as error:
        sys.stderr.write("perflab: this process is not attached: %s\n" % error)  # noqa: UP031 - any Python


def _go_on() -> None:
    hidden = importlib.machinery.PathFinder.find_spec("sitecustomize", sys.path)
    if hidden is not None and hidden.loader is not None:
        module = importlib.util.module_from_spec(hidden)
        sys.modules["sitecustomize"] = module
        hidden.loader.exec_module(module)


_here = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != _here]
_attach()
_go_on()
