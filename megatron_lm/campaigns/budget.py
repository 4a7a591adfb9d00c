"""How long the jobs of a campaign will take, roughly, and which of them a budget of time allows."""

from dataclasses import dataclass, field
from time import monotonic

import numpy as np

from idealized_runtime.architectures import weight_bytes
from idealized_runtime.hardware.accelerators import Accelerator
from idealized_runtime.hardware.rates import device_rates
from idealized_runtime.hardware.roofline import Roofline
from megatron_lm.campaigns.jobs import Job, first_layers
from megatron_lm.engines import ENGINES

# To start a process and CUDA; to make weights; how far engines are from their floors.
_START_S, _BUILD_BYTES_PER_S, _OVER_FLOOR = 12.0, 3e10, 1.4
# Of a job that times until its target is reached, a setting: some are timed often, many not at all.
_RUNS_UNTIL_KNOWN = 2
# Of a job in the middle of its work, when the budget ends.
_LAST_SECONDS = 20.0
# A job that takes so many times what is expected of it hangs: it is stopped, for the others' sake. Estimates of short
# jobs are the worst.
_MAX_OVER_EXPECTED, _LEAST_LIMIT_S = 3.0, 120.0


def estimated_s(job: Job, accelerator: Accelerator) -> float:
    """About how long the settings that are left of a job will take, by the floors of the accelerator."""
    measurement, pending = job.measurement, job.pending_settings()
    # Of the cache, which depends on it, an estimate knows nothing.
    rates = device_rates(None, hardware=accelerator.name, dtype=measurement.dtype, is_cuda=True)
    if (goal := measurement.goal) is None:
        # Each further block warms up once more, and makes the weights of all slices but one again.
        num_more = measurement.num_blocks - 1
        num_runs = measurement.num_warmup + measurement.num_trials + min(measurement.num_warmup, 1) * num_more
    else:
        # As many as it takes: about this many of each setting, or what it may spend.
        num_more, num_runs = 0, _RUNS_UNTIL_KNOWN
    num_slices = len({setting["num_layers_profiled"] for setting in pending})
    num_builds = 1 + num_more * (num_slices - 1) / max(num_slices, 1)
    seconds, runs_s = _START_S, 0.0
    for num_layers in {setting["num_layers_profiled"] for setting in pending}:
        part = first_layers(measurement.architecture, num_layers)
        parallelism = measurement.tensor_parallel_size, measurement.pipeline_parallel_size
        roofline = Roofline(part, rates, measurement.dtype, *parallelism)
        launch_s = num_layers * ENGINES[measurement.engine].launch_s
        seconds += num_builds * weight_bytes(part, dtype=measurement.dtype) / _BUILD_BYTES_PER_S
        for setting in pending:
            if setting["num_layers_profiled"] == num_layers:
                runs_s += num_runs * _runtime_s(roofline, launch_s, setting)
    return seconds + (runs_s if goal is None else min(runs_s, goal.max_seconds or np.inf))


def _runtime_s(roofline, launch_s, setting) -> float:
    p, o, batch_size = (setting[name] for name in ("num_prompt_tokens", "num_output_tokens", "batch_size"))
    m, k = setting["micro_batch_size"], setting["token_micro_batch_size"]
    prompt_s = max(_OVER_FLOOR * float(roofline.prompt_encoding_s(p, batch_size=m)), launch_s)
    token_s = max(_OVER_FLOOR * float(roofline.output_token_s(p + o, batch_size=k)), launch_s)
    return batch_size // m * prompt_s + (o - 1) * (batch_size // k) * token_s


@dataclass
class Budget:
    """Seconds that may still be used, and what the estimates of this run were worth."""

    seconds: float
    accelerator: Accelerator
    started_s: float = field(default_factory=monotonic)
    estimated_s: float = 0.0
    used_s: float = 0.0

    @property
    def left_s(self) -> float:
        """Until the end of the budget."""
        return self.seconds - (monotonic() - self.started_s)

    def expected_s(self, estimated_s: float) -> float:
        """Estimate of a job, corrected by how long the jobs before it took."""
        return estimated_s * (self.used_s / self.estimated_s if self.estimated_s else 1.0)

    def limit_s(self, expected_s: float) -> float:
        """Seconds after which a job of which so many are expected is stopped."""
        longest_s = max(_MAX_OVER_EXPECTED * expected_s, _LEAST_LIMIT_S)
        return max(min(longest_s, self.left_s - _LAST_SECONDS), 1.0)

    def note(self, estimated_s: float, used_s: float):
        """Learn from a job that is complete."""
        self.estimated_s, self.used_s = self.estimated_s + estimated_s, self.used_s + used_s
