"""The flags that several commands share, spelled as arXiv:2401.00448's scripts spell them."""

import argparse

from idealized_runtime.checks import device_rate, not_negative_number, positive_number, share_of_peak
from idealized_runtime.cli.flags import add_shared

# Means of LMSys chats, as arXiv:2401.00448 takes them.
DEFAULT_SIZES = {"num_prompt_tokens": 70.0, "num_output_tokens": 215.0}
DEFAULT_HARDWARE = {"train": ("H100", "bf16"), "inference": ("H100", "fp8")}
PROPERTIES = {
    "num_params": ("--model", "N", "parameters"),
    "num_training_tokens": ("--data", "D", "training tokens"),
    "training_flops": ("--compute", "C", "training FLOPs"),
    "loss": ("--loss", "L", "final training loss, nats a token"),
}


def add_properties(parser):
    """Flags that fix a model."""
    group = parser.add_argument_group("the model")
    for name, (flag, metavar, what) in PROPERTIES.items():
        group.add_argument(flag, type=positive_number, dest=name, metavar=metavar, help=what)
    group.add_argument(
        "--chinchilla", action=argparse.BooleanOptionalAction, default=False,
        help="take the size that reaches its loss with the fewest training FLOPs; one property then fixes it",
    )  # fmt: skip


def add_loss(parser):
    """The flag of the loss that an optimum reaches."""
    parser.add_argument("--loss", type=positive_number, required=True, help="loss to reach, nats a token")


def add_inference_tokens(parser, *, default: float):
    """The flag of a demand in tokens."""
    # --tokens is the README's spelling of the original, beside its script's.
    parser.add_argument(
        "--inference-tokens", "--tokens", type=not_negative_number, default=default, metavar="T",
        dest="num_inference_tokens", help="prompt and output tokens over the model's life (default: %(default)g)",
    )  # fmt: skip


def add_hardware(parser):
    """Flags of what trains and serves, its prices and utilisations."""
    group = parser.add_argument_group("hardware", "Prices in dollars an hour of one accelerator; without one, what "
                                      "arXiv:2401.00448 assumes, else the dated price of the accelerator.")  # fmt: skip
    for side, (accelerator, dtype) in DEFAULT_HARDWARE.items():
        # None where the flag is not given: with --parameters the default is what was measured.
        group.add_argument(f"--{side}-gpu-type", metavar="NAME",
                           help=f"such as A100_40, A100_80, H100, V100-32GB (default: {accelerator})")  # fmt: skip
        group.add_argument(f"--{side}-gpu-cost", type=device_rate, metavar="USD", help="price an hour")
        group.add_argument(f"--{side}-dtype", metavar="TYPE",
                           help=f"bf16, fp16, fp8, int8: what the accelerator has (default: {dtype})")  # fmt: skip
    for flag, dest, default, what in (
        ("--train-mfu", "training_mfu", 0.5, "training"),
        ("--prefill-mfu", "prompt_mfu", 0.5, "prompts"),
        ("--generation-mfu", "output_mfu", 0.01, "output tokens"),
    ):
        group.add_argument(flag, dest=dest, type=share_of_peak, default=default, metavar="MFU",
                           help=f"utilisation for {what}, in (0, 1] (default: %(default)s)")  # fmt: skip


def add_requests(parser, *, default: float):
    """Flags of a demand in requests."""
    group = parser.add_argument_group("inference demand")
    group.add_argument("--inference-reqs", dest="num_requests", type=not_negative_number, default=default, metavar="R",
                       help="requests over the model's life (default: %(default)g)")  # fmt: skip
    for flag, dest, what in (
        ("--input-tok", "num_prompt_tokens", "prompt"), ("--output-tok", "num_output_tokens", "output"),
    ):  # fmt: skip
        # None where the flag is not given: a workload may state its own.
        group.add_argument(flag, dest=dest, type=not_negative_number, metavar="TOKENS",
                           help=f"mean {what} tokens a request (default: {DEFAULT_SIZES[dest]:g}, of LMSys "
                           "chats)")  # fmt: skip


def add_answer(parser):
    """Flags of the scaling law, of its intervals, and of how the answer is printed."""
    group = parser.add_argument_group("scaling law")
    group.add_argument("--coefficients", default="chinchilla", metavar="NAME|FILE",
                       help="chinchilla (default), hoffmann-2022, hoffmann-2022-tex, epoch, or a file that "
                       "`lifetime fit --out` wrote: then with intervals")  # fmt: skip
    for name in ("A", "B", "E", "alpha", "beta"):
        allowed = not_negative_number if name == "E" else positive_number
        group.add_argument(f"--{name}", type=allowed, help="this coefficient instead of the set's")
    add_shared(group, "--level")
    add_shared(parser, "--json")
