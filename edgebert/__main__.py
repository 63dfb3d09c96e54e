"""`python -m edgebert` is the command `edgebert`."""

import sys

from edgebert.cli.main import main

if __name__ == "__main__":  # and no process that is started from here, as Dask's workers are
    sys.exit(main())
