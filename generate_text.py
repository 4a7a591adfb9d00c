#!/usr/bin/env python
"""Time Megatron text generation: arguments -> model -> timed generation -> log."""

import sys

from megatron_lm import driver


def main(argv=None) -> int:
    """As ``idealized-runtime time``, under the name that scripts of 2023 call."""
    return driver.main(argv, program="generate_text.py")


if __name__ == "__main__":
    sys.exit(main())
