"""Settings that were timed in process, as records of a timing log and as frames with one row a trial, or a setting."""

import numpy as np
import pandas as pd

from idealized_runtime.records.common import (
    BATCH_COLUMNS,
    IDENTITY_COLUMNS,
    PARALLELISM_COLUMNS,
    SETTING_COLUMNS,
    LogFormatError,
    NothingTimedError,
    is_duration,
    is_integer,
    setting_name,
)

# What is known of each trial next to its runtime: its two parts, which add up to it, and its energy.
TRIAL_LISTS = {
    "prompt_encoding_time_s": "prompt_encoding_times_s",
    "generation_time_s": "generation_times_s",
    "energy_joules": "energies_joules",
}
# A trial that something else on the machine held up: see `_is_disturbed`.
_DISTURBED_FACTOR, _DISTURBED_DEVIATIONS, _DISTURBED_MIN_TRIALS = 1.25, 5.0, 5


def runtime_sentence(setting: dict) -> str:
    """The sentence of 2023 for one ``setting`` record, which scripts of that time parse."""
    runtimes_s = np.asarray(setting["runtimes_s"])
    std_s = runtimes_s.std(ddof=1) if len(runtimes_s) > 1 else 0.0
    tokens = {"num_input_tokens": setting["num_prompt_tokens"], "num_output_tokens": setting["num_output_tokens"]}
    return f"Runtime for {tokens}: {runtimes_s.mean():.3f} seconds +- {std_s:.3f}"


def setting_key(setting: dict) -> tuple:
    """What tells one setting of a log from another: the values of ``SETTING_COLUMNS``, and the slice of the layers."""
    return tuple(setting[name] for name in (*SETTING_COLUMNS, "num_layers_profiled"))


def complete_setting(setting: dict, header: dict) -> dict:
    """The same setting, with what records lacked before there were micro-batches and slices.

    Without ``micro_batch_size`` or ``token_micro_batch_size`` the whole batch went together; without
    ``num_layers_profiled`` the header's one slice was timed.
    """
    batch_size, profiled = setting.get("batch_size"), header["num_layers_profiled"]
    if isinstance(profiled, list):
        profiled = profiled[0] if len(profiled) == 1 else None
    return {
        "micro_batch_size": batch_size,
        "token_micro_batch_size": batch_size,
        "num_layers_profiled": profiled,
        **setting,
    }


def check_setting(where, setting: dict, seen: set[tuple], header: dict) -> dict:
    """The setting in full (:func:`complete_setting`); ``seen`` holds the keys that stand before it.

    Raises
    ------
    LogFormatError
        A size or a runtime is not one, or the setting is repeated; the message begins with ``where``.
    """
    setting = complete_setting(setting, header)
    _check_sizes(where, setting, header)
    if setting_key(setting) in seen:
        named = f"{setting_name(setting)} on {setting['num_layers_profiled']} layers"
        raise LogFormatError(f"{where}: setting {named} stands here a second time")
    if "error" in setting:
        if not isinstance(setting["error"], dict) or "type" not in setting["error"]:
            raise LogFormatError(f"{where}: error must be an object with a type; got {setting['error']!r:.60}")
        return setting
    _check_times(where, setting)
    return setting


def trials_frame(log) -> pd.DataFrame:
    """One row a trial, as timed: of the slice, where only some layers were."""
    settings = [setting for setting in log.settings if "error" not in setting]
    if not settings:
        raise NothingTimedError(f"{log.path}: holds no timing: {len(log.settings)} settings, all of which failed")
    num_trials = [len(setting["runtimes_s"]) for setting in settings]
    columns = [*SETTING_COLUMNS, "num_layers_profiled"]
    return pd.DataFrame(
        {
            "model": log.header["model"],
            "hardware": log.header["hardware"],
            "software": _software_name(log.header),
            **{name: np.repeat([setting[name] for setting in settings], num_trials) for name in columns},
            **{name: log.header[name] for name in PARALLELISM_COLUMNS},
            "trial": np.concatenate([np.arange(count) for count in num_trials]),
            "runtime_s": np.concatenate([setting["runtimes_s"] for setting in settings]),
            **{name: _listed(settings, listed) for name, listed in TRIAL_LISTS.items()},
            "is_disturbed": np.concatenate([_is_disturbed(np.array(setting["runtimes_s"])) for setting in settings]),
        }
    )


def means_frame(trials: pd.DataFrame) -> pd.DataFrame:
    """One row a setting and slice."""
    keys = [*IDENTITY_COLUMNS, *SETTING_COLUMNS, *PARALLELISM_COLUMNS, "num_layers_profiled"]
    # What an API does not tell is missing, and a key all the same.
    num_disturbed = trials.groupby(keys, sort=False, dropna=False)["is_disturbed"].sum().to_numpy()
    # A neighbour on the machine slows a few trials several times over: they say nothing about the model.
    kept = trials[~trials["is_disturbed"]].groupby(keys, sort=False, dropna=False)
    frame = kept["runtime_s"].agg(runtime_s="mean", runtime_std_s="std", runtime_min_s="min", num_trials="size")
    return frame.assign(num_disturbed=num_disturbed).join(kept[list(TRIAL_LISTS)].mean()).reset_index()


def _is_disturbed(runtimes_s: np.ndarray) -> np.ndarray:
    """Which trials of one setting were held up, by a rule that ordinary noise does not meet."""
    if len(runtimes_s) < _DISTURBED_MIN_TRIALS:
        return np.zeros(len(runtimes_s), dtype=bool)
    excess_s = runtimes_s - np.median(runtimes_s)
    # 1.4826 turns the median absolute deviation of normal noise into its standard deviation.
    std_s = 1.4826 * np.median(np.abs(excess_s))
    return (runtimes_s > _DISTURBED_FACTOR * np.median(runtimes_s)) & (excess_s > _DISTURBED_DEVIATIONS * std_s)


def _software_name(header: dict) -> str:
    """Software stack and data type of a header, such as ``megatron-core 0.16.1 sdpa, torch 2.13.0, float32``."""
    software = header["software"]
    torch_version = f"torch {software.get('torch', 'of unknown version')}"
    return f"megatron-core {software['megatron-core']} {header['engine']}, {torch_version}, {header.get('dtype')}"


def _listed(settings, name) -> np.ndarray:
    """One value of every trial; NaN where the log does not have it."""
    return np.concatenate(
        [
            np.full(len(setting["runtimes_s"]), np.nan) if setting.get(name) is None else setting[name]
            for setting in settings
        ]
    )


def _check_sizes(where, setting, header):
    for name in (*SETTING_COLUMNS, "num_layers_profiled"):
        if not is_integer(setting.get(name), 1):
            raise LogFormatError(f"{where}: {name} must be an integer of at least 1; got {setting.get(name)!r}")
    for name in BATCH_COLUMNS[1:]:
        if setting["batch_size"] % setting[name]:
            raise LogFormatError(
                f"{where}: {name} must divide the batch size, {setting['batch_size']}; got {setting[name]}"
            )
    profiled = header["num_layers_profiled"]
    slices = profiled if isinstance(profiled, list) else [profiled]
    if setting["num_layers_profiled"] not in slices:
        raise LogFormatError(
            f"{where}: num_layers_profiled must be one of the header's, {slices}; got {setting['num_layers_profiled']}"
        )


def _check_times(where, setting):
    runtimes_s = setting.get("runtimes_s")
    if not isinstance(runtimes_s, list) or not runtimes_s or not all(is_duration(t) for t in runtimes_s):
        raise LogFormatError(f"{where}: runtimes_s must be a list of positive seconds; got {runtimes_s!r:.60}")
    for listed in TRIAL_LISTS.values():
        values = setting.get(listed)
        if values is None:
            continue
        # A query of one output token generates none after its prompt: 0 s. A counter may not have moved: 0 J.
        if not isinstance(values, list) or not all(is_duration(value) or value == 0 for value in values):
            unit = "joules" if listed == "energies_joules" else "seconds"
            raise LogFormatError(f"{where}: {listed} must be a list of {unit}; got {values!r:.60}")
        if len(values) != len(runtimes_s):
            raise LogFormatError(f"{where}: {listed} has {len(values)} trials, runtimes_s {len(runtimes_s)}")
