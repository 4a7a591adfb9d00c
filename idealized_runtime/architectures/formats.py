"""Bytes of weights as a configuration stores them: formats of fewer bits with their scales, matrix by matrix.

A ``quantization_config`` says which matrices are quantised and how; what it leaves out has 16 bits. Read are those of
``transformers`` (fp8 in blocks, mxfp4, GPTQ, AWQ, bitsandbytes), of compressed-tensors and of NVIDIA's ModelOpt.
"""

import fnmatch
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from idealized_runtime.architectures.architecture import Architecture
from idealized_runtime.architectures.parts import POSITIONS, Matrix, Part, outer_part, plain_layers

_PLAIN_BYTES = 2


@dataclass(frozen=True)
class Format:
    """How one matrix is stored.

    Parameters
    ----------
    bits : int
        Of a weight.
    rows, columns : int, optional
        Of the block that shares a scale; all of the matrix where they are not given.
    scale_bytes : float
        Of a scale, zero points included.
    matrix_bytes : int
        Of what the whole matrix has once.
    """

    bits: int
    rows: int | None = None
    columns: int | None = None
    scale_bytes: float = 0
    matrix_bytes: int = 0

    def num_bytes(self, matrix: Matrix) -> float:
        """Of one matrix, scales included; a block that is not full has a scale too."""
        rows, columns = self.rows or matrix.num_rows, self.columns or matrix.num_columns
        num_blocks = -(-matrix.num_rows // rows) * -(-matrix.num_columns // columns)
        return matrix.size * self.bits / 8 + num_blocks * self.scale_bytes + self.matrix_bytes


MXFP4 = Format(4, 1, 32, 1)
MXFP8 = Format(8, 1, 32, 1)
# Scales of 16 weights in fp8, and one of the matrix and one of its inputs in float32.
NVFP4 = Format(4, 1, 16, 1, 8)
FP8 = Format(8, scale_bytes=4)


def stored_bytes(architecture: Architecture, *, num_experts: int | None = None, num_rows: int | None = None) -> int:
    """Bytes of the weights as the configuration stores them.

    Parameters
    ----------
    architecture : Architecture
    num_experts : int, optional
        So many experts of each layer that has any; all where it is not given.
    num_rows : int, optional
        Rows of each table that count; all where it is not given.

    Raises
    ------
    ValueError
        The format is not known here; the message names it.
    """
    format_of, layers = _formats_of(architecture), architecture.layers or plain_layers(architecture)
    total = sum(
        _part_bytes(part, lambda matrix, i=i: format_of(f"layers.{i}.", matrix), num_experts, num_rows)
        for i, layer in enumerate(layers)
        for part in layer
    )
    outer = (outer_part(architecture), *architecture.outer_parts)
    total += sum(_part_bytes(part, lambda matrix: format_of("", matrix), num_experts, num_rows) for part in outer)
    return math.ceil(total)


def shares_by_bits(architecture: Architecture, *, of_experts: bool) -> dict[int, float]:
    """Shares of the layers' weights by the bits that each is stored in: those of routed experts, or all others.

    Raises
    ------
    ValueError
        As :func:`stored_bytes`.
    """
    format_of, layers = _formats_of(architecture), architecture.layers or plain_layers(architecture)
    num_weights = defaultdict(int)
    for i, layer in enumerate(layers):
        for part in layer:
            for matrix in part.matrices:
                if matrix.is_expert == of_experts and not matrix.is_table:
                    stored = format_of(f"layers.{i}.", matrix)
                    bits = 8 * _PLAIN_BYTES if stored is None else stored.bits
                    num_weights[bits] += matrix.size * (part.num_experts if of_experts else 1)
    total = sum(num_weights.values())
    return {bits: number / total for bits, number in num_weights.items()}


def cache_dtype(architecture: Architecture) -> str:
    """Data type of the cache that a configuration asks for: ``"float8"``, or ``"bfloat16"`` where it says nothing."""
    config = architecture.uncounted_options.get("quantization_config") or {}
    config = {**config, **(config.get("quantization") or {})}
    scheme = config.get("kv_cache_scheme") or config.get("kv_cache_quant_algo")
    bits = scheme.get("num_bits") if isinstance(scheme, dict) else 8 if str(scheme).upper().startswith("FP8") else 16
    return "float8" if bits == 8 else "bfloat16"


def _formats_of(architecture):
    """As :func:`_formats`, of what the architecture's configuration says."""
    try:
        return _formats(architecture.uncounted_options.get("quantization_config") or {})
    except (AttributeError, TypeError, ArithmeticError, re.error) as error:
        raise ValueError(f"{architecture.name}: quantization_config has a malformed value: {error}") from error


def _part_bytes(part: Part, format_of, num_experts, num_rows) -> float:
    met = part.num_experts if num_experts is None else min(num_experts, part.num_experts)
    total = _PLAIN_BYTES * part.num_vector_params(num_experts)
    for matrix in part.matrices:
        stored = format_of(matrix)
        if matrix.is_table:
            # The sequences of a batch advance together, at one position.
            read = 1 if matrix.name == POSITIONS else num_rows
            total += _PLAIN_BYTES * (matrix.num_rows if num_rows is None else read) * matrix.num_columns
        else:
            one = _PLAIN_BYTES * matrix.size if stored is None else stored.num_bytes(matrix)
            total += one * (met if matrix.is_expert else 1)
    return total


def _formats(config: dict) -> Callable[[str, Matrix], Format | None]:
    """A function from where a matrix stands and what it is to its format; None where it has 16 bits."""
    config = {**config, **(config.get("quantization") or {})}
    # Of weights in blocks some were quantised again; what that left out is in blocks.
    keys = _LEFT_OUT[:1] if config.get("weight_block_size") else _LEFT_OUT
    left_out = _by_layer((name, True) for key in keys for name in config.get(key) or ())
    rules = list(_rules(config))
    if config and not rules:
        method = config.get("quant_method") or config.get("quant_algo")
        raise ValueError(
            f"weights quantised by {method!r:.60} are not counted in bytes here; known: {', '.join(_KNOWN)}"
        )
    named = _by_layer((pattern, stored) for patterns, stored in rules for pattern in patterns or ())
    general = next((stored for patterns, stored in rules if patterns is None), None)

    def format_of(where, matrix):
        names = list(_names(where, matrix))
        if _first(left_out, where, names):
            return None
        # The head stays as it is unless it is named; a router is no linear layer.
        is_special = matrix.name == "lm_head" or matrix.name.endswith(".gate")
        return _first(named, where, names) or (None if is_special else general)

    return format_of


def _by_layer(pairs) -> dict[str, list]:
    """Pairs of a pattern and what it stands for, by the layer that the pattern names, or under "" where it does not.

    Lists of a thousand names, ten a layer, are common.
    """
    found = defaultdict(list)
    for pattern, value in pairs:
        short = pattern
        if not pattern.startswith("re:"):
            short = _PREFIX.sub("", pattern).removeprefix("model.").removeprefix("language_model.")
        layer = re.match(r"layers\.\d+\.", short)
        found[layer[0] if layer else ""].append((short, value))
    return found


def _first(patterns, where, names):
    """What the first pattern that matches any of the names stands for."""
    candidates = [*patterns.get(where, ()), *(patterns.get("", ()) if where else ())]
    return next((value for pattern, value in candidates if any(_matches(pattern, name) for name in names)), None)


_LEFT_OUT = ("modules_to_not_convert", "ignore", "exclude_modules", "llm_int8_skip_modules")
_KNOWN = ("fp8", "mxfp4", "gptq", "awq", "bitsandbytes", "compressed-tensors", "modelopt")


def _rules(config) -> Iterator[tuple[list[str] | None, Format]]:
    """Patterns of names and their formats, those that name matrices first; no patterns: all that are linear layers."""
    for name, entry in (config.get("quantized_layers") or {}).items():
        if (stored := _by_algorithm(entry.get("quant_algo"), entry)) is not None:
            yield [name], stored
    general = []
    for group in (config.get("config_groups") or {}).values():
        stored, targets = _by_numbers(group.get("weights") or {}, group.get("format")), group.get("targets")
        if stored is not None and targets and targets != ["Linear"]:
            yield list(targets), stored
        elif stored is not None:
            general.append((None, stored))
    method, block = config.get("quant_method"), config.get("weight_block_size")
    scale_bytes = 1 if config.get("scale_fmt") == "ue8m0" else 4
    if config.get("expert_dtype") == "fp4":
        yield ["*.experts.*"], MXFP4
    if config.get("quantized_layers") and not block:
        return
    if method == "fp8" or (block and not general):
        yield None, Format(8, *block, scale_bytes) if block else FP8
    elif method == "mxfp4":
        # Of gpt-oss: its experts only, whatever else is linear.
        yield ["*.experts.*"], MXFP4
    elif method in ("gptq", "awq"):
        bits, group_size = config.get("bits") or config.get("w_bit") or 4, config.get("group_size") or 128
        yield None, Format(bits, 1, group_size if group_size > 0 else None, 2 + bits / 8)
    elif method == "bitsandbytes":
        # Scales of 64 weights in 8 bits, which share others of 256 scales in float32.
        nested = 1 + 4 / 256 if config.get("bnb_4bit_use_double_quant") else 4
        yield None, Format(4, 1, 64, nested) if config.get("load_in_4bit") else Format(8, 1, None, 4)
    elif general:
        yield from general
    elif (stored := _by_algorithm(config.get("quant_algo"), config)) is not None:
        yield None, stored


def _by_algorithm(name, options) -> Format | None:
    """As ModelOpt names formats."""
    named = {"FP8": FP8, "MXFP8": MXFP8, "MXFP4": MXFP4, "FP8_PB_WO": Format(8, 128, 128, 4),
             "FP8_BLOCK_SCALES": Format(8, 128, 128, 4), "INT8_SQ": Format(8, 1, None, 4)}  # fmt: skip
    if name in named:
        return named[name]
    if isinstance(name, str) and "NVFP4" in name:
        return Format(4, 1, options.get("group_size") or 16, 1, 8)
    if isinstance(name, str) and "AWQ" in name:
        return Format(4, 1, options.get("group_size") or 128, 2)
    return None


def _by_numbers(weights, name) -> Format | None:
    """As compressed-tensors describes formats: bits, kind, and which weights share a scale."""
    bits, group_size, block = weights.get("num_bits"), weights.get("group_size"), weights.get("block_structure")
    if not isinstance(bits, int):
        return None
    if weights.get("type") == "float" and bits == 4:
        return MXFP4 if "mxfp4" in str(name) or group_size == 32 else NVFP4
    if isinstance(block, list):
        return Format(bits, *block, 2)
    zero_points = 0 if weights.get("symmetric", True) else bits / 8
    if group_size and group_size > 0:
        return Format(bits, 1, group_size, 2 + zero_points)
    return Format(bits, 1 if weights.get("strategy") == "channel" else None, None, 2 + zero_points)


# What parts of a layer are called beside their names here.
_SYNONYMS = {
    "self_attn": ("attn", "attention", "mixer"),
    "linear_attn": ("mixer", "self_attn"),
    "mamba": ("mixer",),
    "moe": ("",),
    "mlp": ("block_sparse_moe", "mixer", "ffn", "feed_forward"),
}  # fmt: skip
_INNER_SYNONYMS = {"shared_experts": ("shared_expert",), "gate": ("router",)}
_PREFIX = re.compile(r"^(?:language_model\.|model\.|backbone\.)*(?:language_model\.)?(?=layers\.)")


def _names(where, matrix) -> Iterator[str]:
    """Full names that a matrix may have, one of its experts standing for all."""
    first, *rest = matrix.name.split(".")
    for block in (first, *_SYNONYMS.get(first, ())):
        for inner in (rest[0], *_INNER_SYNONYMS.get(rest[0], ())) if rest else ("",):
            yield where + ".".join(filter(None, [block, inner, *rest[1:]]))
            if inner == "experts":
                yield where + ".".join(filter(None, [block, inner, "0", *rest[1:]]))


def _matches(pattern, name) -> bool:
    """As frameworks match: all of a name, its beginning, or its end; with wildcards, or an expression after ``re:``."""
    if pattern.startswith("re:"):
        return re.match(pattern[3:], f"model.{name}") is not None or re.match(pattern[3:], name) is not None
    if "*" in pattern:
        return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"{pattern}.*")
    return name == pattern or name.startswith(f"{pattern}.") or name.endswith(f".{pattern}")
