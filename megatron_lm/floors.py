"""Refuses what cannot have been timed: a runtime below what the machine's own rates allow."""

from dataclasses import replace

from idealized_runtime.architectures import Architecture
from idealized_runtime.hardware.rates import best_rates, device_rates
from idealized_runtime.hardware.roofline import Roofline
from megatron_lm import device as devices
from megatron_lm.environment import describe_hardware
from megatron_lm.machine_rates import measure_machine_rates

# How often the rates are measured again before a runtime below its floor is refused.
_NUM_SECOND_LOOKS = 3


class Floors:
    """Least runtimes of one model on this machine, by rates measured here, of which the journal is told.

    Something else that keeps the machine busy while its rates are measured makes them too low, and honest runtimes
    then look impossible: before one is refused the rates are measured again, and the best count. Where they cannot be
    measured, those of the accelerator's row are taken, if it has one. What a floor allows for besides is said in
    :mod:`idealized_runtime.hardware.roofline`.
    """

    def __init__(
        self, architecture: Architecture, device, dtype, tensor_parallel_size, pipeline_parallel_size, journal
    ):
        self._architecture, self._device, self._dtype = architecture, device, dtype
        self._parallelism = tensor_parallel_size, pipeline_parallel_size
        self._journal = journal
        self._measured = None
        self.measure_rates()

    def measure_rates(self):
        """Measure the rates of the machine, once more where they are known already, and tell the log."""
        rates = best_rates([self._measured, measure_machine_rates(self._device, self._dtype)])
        if rates != self._measured or rates is None:
            self._measured = rates
            self._journal.update_environment(machine_rates=rates)

    def why_impossible(self, setting: dict, runtimes_s: list[float]) -> str | None:
        """What is impossible about the runtimes of a setting; None where nothing is."""
        for look in range(1 + _NUM_SECOND_LOOKS):
            possible_s = self._possible_s(setting)
            if possible_s is None or min(runtimes_s) >= possible_s:
                return None
            if look < _NUM_SECOND_LOOKS:
                self.measure_rates()
        return (
            f"a trial took {min(runtimes_s):.3g} s; reading the weights once a token and computing the prompt takes at "
            f"least {possible_s:.3g} s at the rates of this machine, caches and an error of the rates allowed for. "
            "Check that the clock waits for the device and that the model was run whole. If something else kept the "
            "machine busy, also while its rates were measured again just now, the same command times the setting again"
        )

    def _possible_s(self, setting) -> float | None:
        dtype = devices.dtype_name(self._dtype)
        hardware, is_cuda = describe_hardware(self._device), self._device.type == "cuda"
        rates = device_rates(self._measured, hardware=hardware, dtype=dtype, is_cuda=is_cuda)
        if rates is None:
            return None
        timed = replace(self._architecture, num_layers=setting["num_layers_profiled"], num_layers_profiled=None)
        sizes = setting["num_prompt_tokens"], setting["num_output_tokens"]
        return float(
            Roofline(timed, rates, dtype, *self._parallelism).possible_s(*sizes, batch_size=setting["batch_size"])
        )
