#!/usr/bin/env python
"""Time Megatron text generation: ``idealized-runtime time`` under the name that scripts of 2023 call."""

import sys

from idealized_runtime.cli import main as command


def main(argv=None) -> int:
    """Run it; its exit code."""
    return command.main(["time", *(sys.argv[1:] if argv is None else argv)], program="generate_text.py")


if __name__ == "__main__":
    sys.exit(main())
