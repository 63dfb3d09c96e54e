"""`python -m edgebert` is the command `edgebert`."""

import sys

from edgebert.cli import main

sys.exit(main())
