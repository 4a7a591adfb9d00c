"""What the parser of the command line and its answers both know of the flags. Imports nothing that takes time."""

DEFAULT_HARDWARE = {"train": ("H100", "bf16"), "inference": ("H100", "fp8")}
MEASURED_FLAGS = ("--queries", "--extrapolate", "--models", "--num-accelerators")
PROPERTY_FLAGS = {
    "num_params": "--model",
    "num_training_tokens": "--data",
    "training_flops": "--compute",
    "loss": "--loss",
}
