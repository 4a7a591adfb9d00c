"""Megatron: timed text generation. The only folder that imports torch or megatron-core."""

import warnings

# What is missing of Megatron's options, it says when it is imported; nothing here asks for them.
warnings.filterwarnings("ignore", module=r"megatron\.")
