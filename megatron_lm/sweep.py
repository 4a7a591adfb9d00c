"""A sweep over prompt, output and batch sizes: each setting timed, logged and printed as it is done."""

import os
import sys
from contextlib import nullcontext
from dataclasses import replace
from itertools import groupby

import torch
from tqdm import tqdm

from idealized_runtime.records import Journal, runtime_sentence, setting_key, setting_name
from idealized_runtime.records.settings import REFUSED
from megatron_lm import device as devices
from megatron_lm.energy import open_energy_meter
from megatron_lm.engines import load_engine
from megatron_lm.environment import describe_environment, describe_hardware, describe_software
from megatron_lm.floors import Floors
from megatron_lm.generation import generate
from megatron_lm.measurement import Measurement
from megatron_lm.model import build_model
from megatron_lm.parallel import ProcessGrid
from megatron_lm.ranks import OtherRankError, RankOutOfMemoryError
from megatron_lm.timing import time_trials

# One token is read weights, a prompt is arithmetic: about this many prompt tokens take as long as one output token.
_PROMPT_TOKENS_PER_OUTPUT_TOKEN = 32


def run_sweep(measurement: Measurement, token_ids: list[int], *, log_path, grid: ProcessGrid) -> int:
    """Time every setting that the log does not hold yet; rank 0 of the grid prints and writes.

    Parameters
    ----------
    measurement : Measurement
    token_ids : list of int
        At least as many as the longest prompt that fits the model.
    log_path : path-like or None
    grid : ProcessGrid

    Returns
    -------
    int
        Exit status: 0, or 1 where no setting could be timed.

    Raises
    ------
    LogMismatchError
        The log holds another measurement; nothing was timed.
    ValueError
        The device does not have the data type; nothing was timed.
    RankOutOfMemoryError, OtherRankError
        One of several ranks failed. If it ran out of memory its setting is logged as failed.
    """
    dtype = devices.select_dtype(grid.device, measurement.dtype)
    header = _header(measurement, grid.device)
    if grid.rank > 0:
        # As rank 0, but for a log that nobody reads and a terminal that nobody sees.
        with Journal(None, header) as journal, open(os.devnull, "w") as unseen:
            _Sweep(measurement, dtype, token_ids, grid, journal, out=unseen, err=unseen).run(grid.share())
        return 0
    with Journal(log_path, header) as journal:
        pending, floors = _pending_settings(measurement, journal.log), None
        if pending:
            parallelism = measurement.tensor_parallel_size, measurement.pipeline_parallel_size
            floors = Floors(measurement.architecture, grid.device, dtype, *parallelism, journal)
        sweep = _Sweep(measurement, dtype, token_ids, grid, journal, floors, out=sys.stdout, err=sys.stderr)
        sweep.run(grid.share(pending))
        journal.finish()
        return 1 if journal.log.failed and len(journal.log.failed) == len(journal.log.settings) else 0


def _header(measurement, device) -> dict:
    """Header record of the log: what is timed, and on what."""
    return {
        "model": measurement.architecture.name,
        "hardware": describe_hardware(device),
        "software": describe_software(device),
        **measurement.header(),
        "num_threads": torch.get_num_threads() if device.type == "cpu" else None,
        "environment": describe_environment(device),
    }


def _pending_settings(measurement, log) -> list[dict]:
    settings = measurement.settings()
    pending = [setting for setting in settings if setting_key(setting) not in log.completed]
    if len(pending) < len(settings):
        done = ", ".join(setting_name(setting) for setting in settings if setting not in pending)
        left = f"{len(pending)} left" if pending else "nothing left to do"
        print(
            f"{log.path}: skipping {len(settings) - len(pending)} settings it holds ({done}); {left}", file=sys.stderr
        )
    return pending


class _Sweep:
    """The settings that are left, timed on one rank of the grid."""

    def __init__(self, measurement, dtype, token_ids, grid, journal, floors=None, *, out, err):
        self._measurement, self._dtype, self._token_ids = measurement, dtype, token_ids
        self._grid, self._device, self._journal, self._floors = grid, grid.device, journal, floors
        self._new_engine = load_engine(measurement.engine)
        # Megatron's own engine has a loop of its own.
        self._generate = getattr(self._new_engine, "generate", generate)
        # Another process's device has a counter of its own: what one counts is then a part of the energy.
        self._meter = open_energy_meter(self._device) if grid.size == 1 else None
        self._out, self._err = out, err

    def run(self, pending):
        """Time the settings, those of one slice of the layers after those of another."""
        architecture = self._measurement.architecture
        bar_format = "{desc}{percentage:3.0f}%|{bar}| {elapsed} elapsed, {remaining} left"
        total = sum(_weight(setting, self._measurement) for setting in pending)
        with (
            tqdm(total=total, desc=architecture.name, bar_format=bar_format, file=self._err)
            if pending
            else nullcontext() as progress
        ):
            for num_layers, settings in groupby(pending, key=lambda setting: setting["num_layers_profiled"]):
                engine = self._build_engine(num_layers)
                for setting in settings:
                    self._time_and_log(engine, setting, progress)
                # Its weights go before those of the next slice come.
                del engine
                devices.release_memory(self._device)

    def _build_engine(self, num_layers):
        architecture = self._measurement.architecture
        try:
            model = build_model(
                architecture,
                device=self._device,
                dtype=self._dtype,
                seed=self._measurement.seed,
                grid=self._grid,
                num_layers=num_layers,
            )
            # Some hold more for a moment: experts are brought into one tensor, a layer at a time.
            return self._new_engine(model, architecture)
        except (RuntimeError, MemoryError) as error:
            if not devices.is_out_of_memory(error):
                raise
            num_bytes = replace(architecture, num_layers=num_layers, num_layers_profiled=None).num_params
            num_bytes *= self._dtype.itemsize
            raise ValueError(
                f"{architecture.name} does not fit the memory of {describe_hardware(self._device)}: the weights "
                f"of its {num_layers} layers take {num_bytes / 2**30:.1f} GiB in {self._dtype}; use a smaller "
                "model, --bf16, --num-layers-profiled, more processes or another device"
            ) from error

    def _time_and_log(self, engine, setting, progress):
        measurement = self._measurement
        weight = _weight(setting, measurement)
        step = weight / (measurement.num_warmup + measurement.num_trials)
        progress.set_description(f"{measurement.architecture.name} {setting_name(setting)}")
        start = progress.n
        try:
            record = self._time_setting(engine, setting, lambda: progress.update(step))
        except BaseException as error:
            self._log_failed_rank(setting, error)
            raise
        self._journal.append("setting", record)
        if "error" in record:
            # The trials it did not run are not left to do.
            progress.total -= weight - (progress.n - start)
            progress.write(f"{setting_name(setting)} failed: {record['error']['message']}", file=self._err)
        else:
            progress.write(runtime_sentence(record), file=self._out)
            self._out.flush()

    def _log_failed_rank(self, setting, error):
        """A rank without memory ends the run; the same command then goes on behind the setting it failed at."""
        try:
            self._grid.explain(error)
        except OtherRankError as other:
            if other.is_out_of_memory:
                self._journal.append("setting", {**setting, "error": _out_of_memory(other)})
            raise
        if isinstance(error, RankOutOfMemoryError):
            self._journal.append("setting", {**setting, "error": _out_of_memory(error)})

    def _time_setting(self, engine, setting, on_trial) -> dict:
        """Record of one setting: its trials, or its error where it does not fit."""
        num_positions = setting["num_prompt_tokens"] + setting["num_output_tokens"] - 1
        limit = self._measurement.architecture.max_position_embeddings
        if num_positions > limit:
            message = f"needs {num_positions} positions; the model has {limit}"
            return {**setting, "error": {"type": "ContextLengthError", "message": message}}
        failure = _attempt(lambda: engine.reset(setting["batch_size"], num_positions))
        if not self._grid.all_agree(failure is None):
            failure = failure or "out of memory on another rank"
        if failure is None:
            trials = []
            failure = _attempt(lambda: trials.append(self._run_trials(engine, setting, num_positions, on_trial)))
            if failure is None:
                message = self._floors and self._floors.why_impossible(setting, trials[0]["runtimes_s"])
                error = {"type": REFUSED, "message": message}
                return {**setting, "error": error} if message else {**setting, **trials[0]}
            if self._grid.size > 1:
                # The others wait for what this rank can no longer send.
                raise RankOutOfMemoryError(
                    f"out of memory at {setting_name(setting)}, which is recorded as failed: {failure}; "
                    "the same command goes on with the rest"
                )
        # Only here, with the tensors of the failed attempt gone, does freeing give anything back.
        devices.release_memory(self._device)
        return {**setting, "error": _out_of_memory(failure)}

    def _run_trials(self, engine, setting, num_positions, on_trial) -> dict:
        measurement = self._measurement
        prompt = torch.tensor(self._token_ids[: setting["num_prompt_tokens"]], dtype=torch.int64, device=self._device)
        prompts = prompt.expand(setting["batch_size"], -1).contiguous()
        generator = torch.Generator(self._device)

        def generate_once(split):
            engine.reset(setting["batch_size"], num_positions)
            generator.manual_seed(measurement.seed)
            return self._generate(
                engine,
                prompts,
                setting["num_output_tokens"],
                measurement.sampling,
                generator=generator,
                micro_batch_size=setting["micro_batch_size"],
                token_micro_batch_size=setting["token_micro_batch_size"],
                grid=self._grid,
                on_prompts_encoded=split,
            )

        trials = time_trials(
            generate_once,
            device=self._device,
            num_warmup=measurement.num_warmup,
            num_trials=measurement.num_trials,
            meter=self._meter,
            barrier=self._grid.barrier,
            on_trial=on_trial,
        )
        # The fields of the trials are the names of the log.
        times = {name: values for name, values in vars(trials).items() if name != "result"}
        return {**times, "output_token_ids": trials.result[0].tolist()}


def _attempt(work) -> str | None:
    """Why the work ran out of memory; None where it did not."""
    try:
        work()
    except (RuntimeError, MemoryError) as error:
        if not devices.is_out_of_memory(error):
            raise
        return (str(error) or "out of memory").splitlines()[0]
    return None


def _out_of_memory(message) -> dict:
    return {"type": "OutOfMemoryError", "message": str(message)}


def _weight(setting, measurement) -> float:
    """Rough time of a setting, in arbitrary units, for the time left to be worth something."""
    num_rounds = setting["batch_size"] // setting["token_micro_batch_size"]
    tokens = setting["batch_size"] * setting["num_prompt_tokens"]
    tokens += num_rounds * _PROMPT_TOKENS_PER_OUTPUT_TOKEN * setting["num_output_tokens"]
    return setting["num_layers_profiled"] * tokens * (measurement.num_warmup + measurement.num_trials)
