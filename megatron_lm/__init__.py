"""Megatron: timed text generation. The only folder that imports torch or megatron-core."""
