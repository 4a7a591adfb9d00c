"""How a batch is cut into micro-batches. Imports neither torch nor Megatron."""


def all_batchings(
    batch_sizes: list[int] | None,
    micro_batch_sizes: list[int] | None,
    token_micro_batch_sizes: list[int] | None,
    *,
    num_stages: int,
) -> list[tuple[int, int, int]]:
    """Every way to run the batches: those combinations whose micro-batches divide the batch.

    Without batch sizes there is one batch for each micro-batch size, as in the drivers of 2023. Without micro-batch
    sizes a batch is cut so that it fills the pipeline. A size that no other divides or is divided by is a ValueError.

    Returns
    -------
    list of tuple
        ``(batch_size, micro_batch_size, token_micro_batch_size)``, in sequences, without repetition: those of a batch,
        those encoded together, and those that generate a token together.
    """
    if batch_sizes is None:
        cuts = [(size, size) for size in micro_batch_sizes or [1]]
    else:
        cuts = [
            (batch_size, micro_batch_size)
            for batch_size in batch_sizes
            for micro_batch_size in micro_batch_sizes or [filling_micro_batch_size(batch_size, num_stages)]
        ]
    batchings = [
        (batch_size, micro_batch_size, token_micro_batch_size)
        for batch_size, micro_batch_size in cuts
        for token_micro_batch_size in token_micro_batch_sizes or [filling_micro_batch_size(batch_size, num_stages)]
        if batch_size % micro_batch_size == 0 and batch_size % token_micro_batch_size == 0
    ]
    _check_all_used(batchings, cuts, batch_sizes, micro_batch_sizes, token_micro_batch_sizes)
    return list(dict.fromkeys(batchings))


def _check_all_used(batchings, cuts, batch_sizes, micro_batch_sizes, token_micro_batch_sizes):
    for place, flag, sizes in (
        (2, "--token-micro-batch-size", token_micro_batch_sizes),
        (1, "--micro-batch-size", micro_batch_sizes),
        (0, "--global-batch-size", batch_sizes),
    ):
        used = {batching[place] for batching in batchings}
        if unused := [size for size in sizes or [] if size not in used]:
            raise ValueError(
                f"{flag} {' '.join(map(str, unused))}: a batch must be cut into equal micro-batches; "
                f"batches of {_listed({cut[0] for cut in cuts})}, micro-batches of {_listed({cut[1] for cut in cuts})} "
                f"for prompts and {_listed(token_micro_batch_sizes or ['any'])} for tokens were asked for"
            )


def filling_micro_batch_size(batch_size: int, num_stages: int) -> int:
    """Largest divisor of the batch that leaves a micro-batch for each stage; 1 where there are too few sequences."""
    return max(size for size in range(1, max(batch_size // num_stages, 1) + 1) if batch_size % size == 0)


def _listed(sizes) -> str:
    return ", ".join(map(str, sorted(sizes)))
