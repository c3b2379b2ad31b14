"""Start the agent in an attached process. `perflab attach` puts this directory first on PYTHONPATH.

Python imports a module of this name at start-up, before the service's own code. Another
``sitecustomize`` that this one hides is imported afterwards, as it would have been.
"""

import importlib
import os
import sys

_here = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != _here]
_config = os.environ.get("PERFLAB_AGENT", "")
if _config:
    from perflab.shadow.agent import start

    start(_config)
sys.modules.pop("sitecustomize", None)
try:
    importlib.import_module("sitecustomize")
except ModuleNotFoundError as _missing:
    if _missing.name != "sitecustomize":
        raise
