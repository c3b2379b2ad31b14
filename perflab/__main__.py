"""``python -m perflab`` is the command line."""

import sys

from perflab.cli import main

sys.exit(main())
