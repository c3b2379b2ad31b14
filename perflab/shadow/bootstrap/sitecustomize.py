"""Start the agent in an attached process. `perflab attach` puts this directory first on PYTHONPATH.

Python imports a module of this name at start-up, before the service's own code. Another
``sitecustomize`` that this one hides is imported afterwards, as it would have been.
"""

import importlib.machinery
import importlib.util
import os
import sys

_here = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != _here]
_config = os.environ.get("PERFLAB_AGENT", "")
if _config:
    from perflab.shadow.agent import start

    start(_config)
_hidden = importlib.machinery.PathFinder.find_spec("sitecustomize", sys.path)
if _hidden is not None and _hidden.loader is not None:
    _hidden.loader.exec_module(importlib.util.module_from_spec(_hidden))
