"""Entry of ``python -m idealized_runtime.fits``."""

import sys

from idealized_runtime.fits.command import main

if __name__ == "__main__":
    sys.exit(main())
