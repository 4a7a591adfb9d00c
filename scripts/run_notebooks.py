#!/usr/bin/env python
"""Execute the notebook runs of notebooks/runs.yml that are not up to date."""

import sys

from idealized_runtime.notebooks import main

if __name__ == "__main__":
    sys.exit(main())
