"""A sweep over prompt, output and batch sizes: each setting timed, logged and printed as it is complete."""

import gc
import itertools
import os
import sys
import time
import warnings
from dataclasses import replace
from datetime import datetime

import torch
from tqdm import tqdm

from idealized_runtime.records import Journal, joined_blocks, runtime_sentence, setting_key, setting_name
from idealized_runtime.records.settings import REFUSED, disturbance_of
from idealized_runtime.records.validity import SuspiciousLogWarning, log_findings
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
from megatron_lm.sequential import Sequence
from megatron_lm.timing import Trials, time_trials
from megatron_lm.visits import by_slice, plan_visits

# One token is read weights, a prompt is arithmetic: about this many prompt tokens take as long as one output token.
_PROMPT_TOKENS_PER_OUTPUT_TOKEN = 32


def run_sweep(measurement: Measurement, token_ids: list[int], *, log_path, grid: ProcessGrid) -> int:
    """Time every setting that the log does not hold yet; rank 0 of the grid prints and writes.

    ``token_ids`` are at least as many as the longest prompt that fits the model.

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
            _Sweep(measurement, dtype, token_ids, grid, journal, out=unseen, err=unseen).run(iter(()))
        return 0
    with Journal(log_path, header) as journal:
        sequence, floors = None, None
        if measurement.goal is not None:
            sequence = Sequence(measurement, journal)
        _say_what_is_held(measurement, journal.log)
        visits = plan_visits(measurement, journal.log) if sequence is None else sequence.next_visits()
        if visits:
            parallelism = measurement.tensor_parallel_size, measurement.pipeline_parallel_size
            floors = Floors(measurement.architecture, grid.device, dtype, *parallelism, journal)
        sweep = _Sweep(measurement, dtype, token_ids, grid, journal, floors, out=sys.stdout, err=sys.stderr)
        if sequence is None:
            sweep.run(iter([visits]))
        elif why := _time_until_known(sweep, sequence, visits, floors):
            journal.stop(why)
            print(f"stopped: {why}", file=sys.stderr)
            return 1
        journal.finish(**({} if sequence is None else {"stopped": vars(sequence.stopped)}))
        if sweep.num_disturbed:
            warnings.warn(
                f"{sweep.num_disturbed} of {sweep.num_timed} settings were disturbed while they were timed: something "
                "else kept the machine busy, and their runtimes are too long. Time them again when it is quiet, into "
                "another log",
                SuspiciousLogWarning,
                stacklevel=2,
            )
        for finding in log_findings(journal.log):
            warnings.warn(f"{finding.name}: {finding.message}", SuspiciousLogWarning, stacklevel=2)
        return 1 if len(journal.log.failed) == len(journal.log.records) else 0


def _time_until_known(sweep, sequence, visits, floors) -> str:
    """Time block after block, and then log the settings; why they cannot be true where they cannot, else empty."""
    sequence.floors, sequence.watch.say = floors, sweep.say
    sweep.run(itertools.chain([visits], iter(sequence.next_visits, [])), sequence)
    if not sequence.refused:
        sweep.log_settings()
        sequence.tell_goal()
        print(sequence.stopped.sentence, file=sys.stderr)
    return sequence.refused


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


def _say_what_is_held(measurement, log):
    if measurement.goal is not None:
        if log.num_visits:
            print(f"{log.path} holds {log.spent_s:.3g} s of runs: going on", file=sys.stderr)
        return
    settings = measurement.settings()
    held = [setting for setting in settings if setting_key(setting) in log.completed]
    if held:
        num_left = len(settings) - len(held)
        left = f"{num_left} left" if num_left else "nothing left to do"
        done = ", ".join(map(setting_name, held))
        print(f"{log.path}: skipping {len(held)} settings it holds ({done}); {left}", file=sys.stderr)


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
        self._failed: set[tuple] = set()
        self._how_far = ""
        self.num_timed = self.num_disturbed = 0

    def run(self, stretches, sequence=None):
        """Make the visits, a stretch of them after the other; weights are made anew for another slice of the layers.

        Parameters
        ----------
        stretches : iterator of lists of dict
            Each asked for when the one before it was made, until one is empty; on other ranks rank 0's count.
        sequence : Sequence, optional
            What they come from, where it knows how far it is.
        """
        # What was imported is not looked through again before every visit.
        gc.collect()
        gc.freeze()
        visits = self._grid.share(next(stretches, []))
        if not visits:
            return
        self._origin_s = _origin_s(self._journal.log.header)
        told = self._journal.log.told_of_environment("products")
        self._products = self._grid.share(told[-1] if told else None)
        bar_format = "{desc}{percentage:3.0f}%|{bar}| {elapsed} elapsed, {remaining} left"
        name, engine, held = self._measurement.architecture.name, None, None
        with tqdm(total=sum(map(_weight, visits)), desc=name, bar_format=bar_format, file=self._err) as self._progress:
            while visits:
                if sequence is not None:
                    self._progress.total = self._progress.n + sequence.left_s or None
                    self._how_far = sequence.progress
                for num_layers, of_slice in by_slice(visits):
                    if num_layers != held:
                        # Its weights go before those of the next slice come.
                        engine = None
                        devices.release_memory(self._device)
                        engine, held = self._build_engine(num_layers), num_layers
                        # Known now are the device and that the weights fit: a disk that is full is found before
                        # anything is timed.
                        self._journal.start()
                    for visit in of_slice:
                        self._make(engine, visit)
                visits = self._grid.share(next(stretches, []))
            del engine
            devices.release_memory(self._device)

    def log_settings(self):
        """Log every setting of which there are blocks, as timed as often as it will be."""
        for blocks in list(self._journal.log.blocks.values()):
            setting = {name: blocks[0][name] for name in self._measurement.settings()[0]}
            ids = next((block["output_token_ids"] for block in reversed(blocks) if "output_token_ids" in block), None)
            self._log_setting(setting, joined_blocks(blocks), ids)

    def _tune(self, engine):
        """Let the engine choose how rows are multiplied; all trials of a log are made as its first run chose."""
        all_num_rows = set()
        for setting in self._measurement.settings():
            all_num_rows |= {
                setting["token_micro_batch_size"], setting["micro_batch_size"] * setting["num_prompt_tokens"]
            }  # fmt: skip
        by_rank = self._grid.gather(engine.tune(all_num_rows, self._products))
        if by_rank[0] is None:
            return
        # The last stage alone has an output layer; of what several ranks have, the log tells the first one's choice.
        chosen = {name: way for found in reversed(by_rank) for name, way in found.items()}
        if chosen != self._products:
            self._products = chosen
            self._journal.update_environment(products=chosen)

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
            engine = self._new_engine(model, architecture)
            # What the engine packs takes the place of the model's own.
            del model
            self._tune(engine)
            return engine
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

    def _make(self, engine, visit):
        """Time one visit, and log its setting if that is complete, or else the block."""
        setting, weight, start = visit["setting"], _weight(visit), self._progress.n
        far = f": {self._how_far}" if self._how_far else ""
        self._progress.set_description(f"{self._measurement.architecture.name} {setting_name(setting)}{far}")
        key, trials, error, log = setting_key(setting), Trials(), None, self._journal.log
        # A sweep that does not know its end counts its seconds.
        advance = lambda share: self._progress.update(0.0 if "numbers" in visit else share * weight)  # noqa: E731
        if key not in self._failed:
            try:
                error = self._why_failed(engine, visit, trials, lambda: advance(1 / _num_runs(visit)))
            except BaseException as stop:
                self._log_part(visit, trials, stop)
                raise
            ids = [] if error else trials.result[0].tolist()
            block = {**setting, **trials.record()}
            if "numbers" in visit and error is None:
                spent_s = log.spent_s
                found = {"clock_gaps_s": trials.clock_gaps_s, "output_token_ids": ids}
                self._journal.append("block", {**block, **visit["numbers"], **found})
                taken_s = log.spent_s - spent_s
                if self._progress.total:
                    # Runs may take longer than was expected of them.
                    self._progress.total = max(self._progress.total, self._progress.n + taken_s)
                self._progress.update(taken_s)
            elif error is None and not visit["is_last"]:
                self._journal.append("block", block)
            else:
                self._log_setting(setting, joined_blocks([*log.blocks.get(key, []), block]), ids, error)
        # Runs that did not take place are not left to do.
        if key in self._failed and "numbers" not in visit:
            self._progress.total -= weight - (self._progress.n - start)

    def _log_setting(self, setting, trials, output_token_ids, error=None):
        record = {**setting, **trials}
        if error is None and (message := self._floors and self._floors.why_impossible(setting, record["runtimes_s"])):
            error = {"type": REFUSED, "message": message, "runtimes_s": record["runtimes_s"]}
        if error is not None:
            self._failed.add(setting_key(setting))
            self._journal.append("setting", {**setting, "error": error})
            self.say(f"{setting_name(setting)} failed: {error['message']}")
            return
        ids = {} if output_token_ids is None else {"output_token_ids": output_token_ids}
        self._journal.append("setting", {**record, **ids})
        try:
            tqdm.write(runtime_sentence(record, self._measurement.varying_columns), file=self._out)
            self._out.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, "standard output") from error
        self.num_timed += 1
        if disturbance := disturbance_of(record):
            self.num_disturbed += 1
            self.say(f"warning: {setting_name(setting)} was disturbed: {disturbance}")

    def say(self, sentence):
        """A line on standard error, above the bar."""
        tqdm.write(sentence, file=self._err)

    def _log_part(self, visit, trials, stop):
        """Keep what a visit that was stopped had timed; a setting that another rank had no memory for has failed.

        The last trial is left for the run that goes on: what was generated is known when it ends.
        """
        setting = visit["setting"]
        if num_whole := min(len(trials.runtimes_s), visit["num_trials"] - 1):
            self._journal.append("block", {**setting, **trials.record(num_whole), **visit.get("numbers", {})})
        lacks_memory = stop if isinstance(stop, RankOutOfMemoryError) else None
        try:
            # The same command then goes on behind the setting that a rank failed at.
            self._grid.explain(stop)
        except OtherRankError as other:
            lacks_memory = other if other.is_out_of_memory else None
            raise
        finally:
            if lacks_memory is not None:
                self._journal.append("setting", {**setting, "error": _out_of_memory(lacks_memory)})

    def _why_failed(self, engine, visit, trials, on_trial) -> dict | None:
        """Error of a setting that does not fit; None where its trials were timed."""
        setting = visit["setting"]
        num_positions = setting["num_prompt_tokens"] + setting["num_output_tokens"] - 1
        limit = self._measurement.architecture.max_position_embeddings
        if num_positions > limit:
            return {"type": "ContextLengthError", "message": f"needs {num_positions} positions; the model has {limit}"}
        failure = _attempt(lambda: engine.reset(setting["batch_size"], num_positions))
        if not self._grid.all_agree(failure is None):
            failure = failure or "out of memory on another rank"
        if failure is None:
            failure = _attempt(lambda: self._run_trials(engine, visit, num_positions, trials, on_trial))
            if failure is None:
                return None
            if self._grid.size > 1:
                # The others wait for what this rank can no longer send.
                raise RankOutOfMemoryError(
                    f"out of memory at {setting_name(setting)}, which is recorded as failed: {failure}; "
                    "the same command goes on with the rest"
                )
        # Only here, with the tensors of the failed attempt gone, does freeing give anything back.
        devices.release_memory(self._device)
        return _out_of_memory(failure)

    def _run_trials(self, engine, visit, num_positions, trials, on_trial):
        measurement, setting = self._measurement, visit["setting"]
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

        time_trials(
            generate_once,
            device=self._device,
            num_warmup=visit["num_warmup"],
            num_trials=visit["num_trials"],
            meter=self._meter,
            barrier=self._grid.barrier,
            on_trial=on_trial,
            origin_s=self._origin_s,
            trials=trials,
        )


def _origin_s(header) -> float:
    """What ``perf_counter`` read, or would have read, when the log was begun: by another run perhaps."""
    age_s = time.time() - datetime.fromisoformat(header["started_at"]).timestamp()
    return time.perf_counter() - max(0.0, age_s)


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


def _num_runs(visit) -> int:
    return visit["num_warmup"] + visit["num_trials"]


def _weight(visit) -> float:
    """Rough time of a visit, in arbitrary units, for the time left to be worth something."""
    setting = visit["setting"]
    num_rounds = setting["batch_size"] // setting["token_micro_batch_size"]
    tokens = setting["batch_size"] * setting["num_prompt_tokens"]
    tokens += num_rounds * _PROMPT_TOKENS_PER_OUTPUT_TOKEN * setting["num_output_tokens"]
    return setting["num_layers_profiled"] * tokens * _num_runs(visit)
