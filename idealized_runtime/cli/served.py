"""Flags of models on servers that come with the package, which several subcommands share."""

_OF_SERVERS = ("concurrency", "dtype")
# Of logs and parameter files alone.
_OF_LOGS = ("accept",)
# Of queries where none are given.
_PROMPT_TOKENS, _OUTPUT_TOKENS = 512, 64


def is_served(arguments, *, others: str = "--logs") -> bool:
    """Whether a model is predicted from what others served, without logs; flags that would go unused are refused.

    ``others`` are the flags that say what to go by instead.
    """
    if arguments.logs is not None:
        if given := [name for name in _OF_SERVERS if getattr(arguments, name, None) is not None]:
            raise ValueError(
                f"--{given[0]} is of servers, which --hardware and --software name: give it without --logs"
            )
        return False
    if arguments.hardware is None or arguments.software is None:
        raise ValueError(
            f"nothing says what to go by: give {others}, or --hardware and --software (such as H100 and vllm)"
        )
    if given := [name for name in _OF_LOGS if getattr(arguments, name, None)]:
        raise ValueError(f"--{given[0]} is of logs: give it with --logs")
    if (getattr(arguments, "pipeline_parallel_size", None) or 1) > 1:
        raise ValueError("pipeline stages were not measured on servers: --pipeline-parallel-size must be 1")
    return True


def where_served(arguments) -> dict:
    """What :func:`~idealized_runtime.serving.served.predict_served` takes, of the flags."""
    width, number = getattr(arguments, "tensor_parallel_size", None), arguments.num_accelerators
    if None not in (width, number) and width != number:
        raise ValueError(
            f"on a server all devices share each layer: --num-accelerators {number} and --tensor-parallel-size {width} "
            "must agree"
        )
    return {"hardware": arguments.hardware, "software": arguments.software, "dtype": arguments.dtype,
            "tensor_parallel_size": width or number}  # fmt: skip


def mean_sizes(queries) -> dict:
    """Mean and longest query of a table, or a usual one without it, as ``predict_served_priced`` takes them."""
    import numpy as np

    from idealized_runtime.records import TOKEN_COLUMNS

    if queries is None:
        p, o, longest = _PROMPT_TOKENS, _OUTPUT_TOKENS, _PROMPT_TOKENS + _OUTPUT_TOKENS
    else:
        known = queries.dropna(subset=TOKEN_COLUMNS)
        p, o = (float(np.average(known[name], weights=known.get("weight"))) for name in TOKEN_COLUMNS)
        longest = int(known[TOKEN_COLUMNS].sum(axis=1).max())
    return {"num_prompt_tokens": p, "num_output_tokens": o, "num_context_tokens": longest}
