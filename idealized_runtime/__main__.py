# PYTHON_ARGCOMPLETE_OK
"""``python -m idealized_runtime``: the command ``idealized-runtime``."""

import sys

from idealized_runtime.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
