"""Triton kernels of a pass of one token of one sequence: six a layer, where torch launches eleven.

Such a pass is reading: of the weights, once. What stands between two matrices (norms, gates, rotary positions, sums
with the residual) is computed by the kernels that read them, and the cache is read in chunks, by as many programs as it
takes to fill the device. Sums are in float32. With ``TRITON_INTERPRET=1`` they run on a CPU.
"""

# ruff: noqa: N803 (constants of a kernel are in capitals, as everywhere in Triton)

import torch
import triton
import triton.language as tl

# Rows of a matrix for each program, and how much of them at a time: 4 warps then ask for 16 bytes a thread and row.
_ROWS, _COLUMNS = 4, 1024
# Tokens of the cache for each program: with 8 groups 512 programs at 4096 tokens, of which an H200 runs 264 at a time.
CHUNK_TOKENS = 64
# Rows that tensor cores take.
_MIN_DOT_ROWS = 16


def linear(inputs, weight, bias=None, *, norm=None, epsilon=0.0, is_gated=False, add_to=None) -> torch.Tensor:
    """Product of a matrix and a vector, with what stands before and behind it.

    Parameters
    ----------
    inputs : tensor of shape (inputs,)
    weight : tensor of shape (outputs, inputs)
        With a gate: the rows of the gate, then as many of what it lets through.
    bias : tensor of shape (outputs,), optional
    norm : tensor of shape (inputs,), optional
        Weight of an RMSNorm of the inputs.
    epsilon : float
        Of the norm.
    is_gated : bool
        SiLU of the first half of the outputs times the second.
    add_to : tensor of shape (outputs,), optional
        The result is added to it, in place.
    """
    num_outputs = len(weight) // (2 if is_gated else 1)
    outputs = inputs.new_empty(num_outputs) if add_to is None else add_to
    _linear[(triton.cdiv(num_outputs, _ROWS),)](
        inputs, norm, weight, bias, outputs, num_outputs, epsilon,
        NUM_INPUTS=len(inputs), NORMALIZES=norm is not None, HAS_BIAS=bias is not None, IS_GATED=is_gated,
        ADDS=add_to is not None, ROWS=_ROWS, COLUMNS=_COLUMNS, num_warps=4,
    )  # fmt: skip
    return outputs


@triton.jit
def _linear(
    inputs, norm, weight, bias, outputs, num_outputs, epsilon,
    NUM_INPUTS: tl.constexpr, NORMALIZES: tl.constexpr, HAS_BIAS: tl.constexpr, IS_GATED: tl.constexpr,
    ADDS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    is_row = rows < num_outputs
    sums = tl.zeros((ROWS, COLUMNS), tl.float32)
    passed = tl.zeros((ROWS, COLUMNS), tl.float32)
    squares = tl.zeros((COLUMNS,), tl.float32)
    for start in range(0, NUM_INPUTS, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        is_column = columns < NUM_INPUTS
        vector = tl.load(inputs + columns, mask=is_column, other=0.0).to(tl.float32)
        if NORMALIZES:
            squares += vector * vector
            vector *= tl.load(norm + columns, mask=is_column, other=0.0).to(tl.float32)
        places = weight + rows.to(tl.int64)[:, None] * NUM_INPUTS + columns[None, :]
        mask = is_row[:, None] & is_column[None, :]
        sums += tl.load(places, mask=mask, other=0.0).to(tl.float32) * vector[None, :]
        if IS_GATED:
            places += num_outputs.to(tl.int64) * NUM_INPUTS
            passed += tl.load(places, mask=mask, other=0.0).to(tl.float32) * vector[None, :]
    result = tl.sum(sums, 1)
    through = tl.sum(passed, 1)
    if NORMALIZES:
        # A common factor, which can wait until the sum of the squares is there.
        factor = 1.0 / tl.sqrt(tl.sum(squares, 0) / NUM_INPUTS + epsilon)
        result *= factor
        through *= factor
    if HAS_BIAS:
        result += tl.load(bias + rows, mask=is_row, other=0.0).to(tl.float32)
    if IS_GATED:
        result = result / (1.0 + tl.exp(-result)) * through
    if ADDS:
        result += tl.load(outputs + rows, mask=is_row, other=0.0).to(tl.float32)
    tl.store(outputs + rows, result.to(outputs.dtype.element_ty), mask=is_row)


def attend(heads, keys, values, position, angles, num_turned, num_slots) -> torch.Tensor:
    """Self-attention of the newest token, whose key and value are written into the cache.

    Parameters
    ----------
    heads : tensor of shape (groups, heads of a group + 2, head_dim)
        Not yet turned.
    keys, values : tensors of shape (groups, slots, head_dim)
        The cache; each contiguous.
    position : int64 tensor of shape (1,)
        Of the token.
    angles : tensor of shape (2, positions, head_dim)
        Cosines and signed sines.
    num_turned : int
        Dimensions that are turned, in pairs of one of the first half and one of the second.
    num_slots : int
        Slots to read, the newest token's among them.

    Returns
    -------
    tensor of shape (groups * heads of a group * head_dim,)
    """
    num_groups, num_heads, head_dim = heads.shape[0], heads.shape[1] - 2, heads.shape[2]
    num_chunks = triton.cdiv(num_slots, CHUNK_TOKENS)
    sums = torch.empty(num_groups, num_chunks, num_heads, head_dim, dtype=torch.float32, device=heads.device)
    # Of each head and chunk the greatest score, and the sum of the exponentials below it.
    maxima, totals = torch.empty(2, num_groups, num_chunks, num_heads, dtype=torch.float32, device=heads.device)
    _attend[(num_groups, num_chunks)](
        heads, keys, values, position, angles, sums, maxima, totals,
        angles.shape[1], keys.stride(0), num_slots, head_dim**-0.5,
        HALF=num_turned // 2, NUM_HEADS=num_heads,
        HEAD_ROWS=max(_MIN_DOT_ROWS, triton.next_power_of_2(num_heads)), HEAD_DIM=head_dim, CHUNK=CHUNK_TOKENS,
        num_warps=4,
    )  # fmt: skip
    attended = heads.new_empty(num_groups * num_heads * head_dim)
    _combine[(num_groups * num_heads,)](
        sums, maxima, totals, attended, num_chunks,
        CHUNKS=triton.next_power_of_2(num_chunks), NUM_HEADS=num_heads, HEAD_DIM=head_dim, num_warps=8,
    )  # fmt: skip
    return attended


@triton.jit
def _attend(
    heads, keys, values, position, angles, sums, maxima, totals, num_positions, group_stride, num_slots, scale,
    HALF: tl.constexpr, NUM_HEADS: tl.constexpr, HEAD_ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    group, chunk = tl.program_id(0), tl.program_id(1)
    newest = tl.load(position)
    dims = tl.arange(0, HEAD_DIM)
    partners = tl.where(dims < HALF, dims + HALF, tl.where(dims < 2 * HALF, dims - HALF, dims))
    cosines = tl.load(angles + newest * HEAD_DIM + dims).to(tl.float32)
    sines = tl.load(angles + (num_positions + newest) * HEAD_DIM + dims).to(tl.float32)
    # Query heads, and behind them the key and the value.
    first = heads + group * (NUM_HEADS + 2) * HEAD_DIM
    head_rows = tl.arange(0, HEAD_ROWS)
    is_head = head_rows[:, None] < NUM_HEADS
    query = tl.load(first + head_rows[:, None] * HEAD_DIM + dims[None, :], mask=is_head, other=0.0).to(tl.float32)
    partner = tl.load(first + head_rows[:, None] * HEAD_DIM + partners[None, :], mask=is_head, other=0.0).to(tl.float32)
    dtype = heads.dtype.element_ty
    query = (query * cosines[None, :] + partner * sines[None, :]).to(dtype)
    own = first + NUM_HEADS * HEAD_DIM
    key = tl.load(own + dims).to(tl.float32) * cosines + tl.load(own + partners).to(tl.float32) * sines
    key = key.to(dtype)
    value = tl.load(own + HEAD_DIM + dims)
    slots = chunk * CHUNK + tl.arange(0, CHUNK)
    cached = group.to(tl.int64) * group_stride + slots[:, None] * HEAD_DIM + dims[None, :]
    is_newest, is_slot = slots[:, None] == newest, slots[:, None] < num_slots
    # The newest token's are not read: another thread may not have written them yet.
    chunk_keys = tl.where(is_newest, key[None, :], tl.load(keys + cached, mask=is_slot, other=0.0))
    chunk_values = tl.where(is_newest, value[None, :], tl.load(values + cached, mask=is_slot, other=0.0))
    if newest // CHUNK == chunk:
        tl.store(keys + group.to(tl.int64) * group_stride + newest * HEAD_DIM + dims, key)
        tl.store(values + group.to(tl.int64) * group_stride + newest * HEAD_DIM + dims, value)
    is_seen = slots[None, :] <= newest
    scores = tl.dot(query, tl.trans(chunk_keys), input_precision="ieee") * scale
    # Finite, so that a chunk of which nothing is seen weighs nothing and is not NaN.
    scores = tl.where(is_seen, scores, -1e30)
    maximum = tl.max(scores, 1)
    weights = tl.where(is_seen, tl.exp(scores - maximum[:, None]), 0.0)
    summed = tl.dot(weights.to(dtype), chunk_values, input_precision="ieee")
    place = (group * tl.num_programs(1) + chunk) * NUM_HEADS + head_rows
    tl.store(sums + place[:, None] * HEAD_DIM + dims[None, :], summed, mask=is_head)
    tl.store(maxima + place, maximum, mask=head_rows < NUM_HEADS)
    tl.store(totals + place, tl.sum(weights, 1), mask=head_rows < NUM_HEADS)


@triton.jit
def _combine(
    sums, maxima, totals, attended, num_chunks,
    CHUNKS: tl.constexpr, NUM_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr,
):  # fmt: skip
    group, head = tl.program_id(0) // NUM_HEADS, tl.program_id(0) % NUM_HEADS
    chunks, dims = tl.arange(0, CHUNKS), tl.arange(0, HEAD_DIM)
    places = (group * num_chunks + chunks) * NUM_HEADS + head
    is_chunk = chunks < num_chunks
    maximum = tl.load(maxima + places, mask=is_chunk, other=-1e30)
    weights = tl.where(is_chunk, tl.exp(maximum - tl.max(maximum, 0)), 0.0)
    total = tl.sum(weights * tl.load(totals + places, mask=is_chunk, other=0.0), 0)
    parts = tl.load(sums + places[:, None] * HEAD_DIM + dims[None, :], mask=is_chunk[:, None], other=0.0)
    result = tl.sum(weights[:, None] * parts, 0) / total
    tl.store(attended + tl.program_id(0) * HEAD_DIM + dims, result.to(attended.dtype.element_ty))
