"""`python -m edgebert` is the command `edgebert`."""

import sys

from edgebert.cli.main import main

sys.exit(main())
