"""Megatron: timed text generation. The only folder that imports torch or megatron-core."""

import sys
import warnings

from megatron_lm.compiler import LateCompilation

# What is missing of Megatron's options, it says when it is imported; nothing here asks for them.
warnings.filterwarnings("ignore", module=r"megatron\.")
sys.meta_path.insert(0, LateCompilation())
