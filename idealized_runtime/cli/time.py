"""Time text generation with Megatron: every (prompt size, output size) of a sweep, as ``generate_text.py`` does."""

from megatron_lm import driver
from megatron_lm.arguments import add_flags


def add_arguments(parser):
    """Add the driver's flags."""
    add_flags(parser)


def main(words) -> int:
    """Run the driver, which ends in a way of its own: with what was measured kept."""
    return driver.main(words)
