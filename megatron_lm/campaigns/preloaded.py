"""What every job of a campaign starts with."""

import warnings

# What is missing of Megatron's options, it says at import; nothing here asks for them.
warnings.filterwarnings("ignore", module=r"megatron\.")

import megatron_lm.sweep  # noqa: E402, F401
