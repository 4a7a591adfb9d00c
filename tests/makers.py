"""What tests of several files build: logs, frames and configurations with known answers."""

import json
import re
import warnings
from importlib import import_module

import nbformat
import numpy as np
import pandas as pd
import pytest

from idealized_runtime.architectures import Architecture, get_architecture
from idealized_runtime.cli.main import COMMANDS, Parser
from idealized_runtime.fits.batched.pipeline import num_passes
from idealized_runtime.records import Journal
from idealized_runtime.records.common import SETTING_COLUMNS

# Logs

HEADER = {
    "model": "gpt2-small",
    "hardware": "Some CPU, 2 cores",
    "software": {"megatron-core": "0.16.1", "torch": "2.13.0"},
    "engine": "sdpa",
    "architecture": get_architecture("gpt2-small").to_dict(),
    "num_layers_profiled": 12,
    "tensor_parallel_size": 1,
    "pipeline_parallel_size": 1,
    "dtype": "float32",
    "sweep": {},
    "environment": {"cpu_model": "Some CPU", "load_average": [0.5]},
}

API_HEADER = {
    "kind": "api",
    "model": "tiny",
    "hardware": "somewhere",
    "software": "mock 1.0",
    "base_url": "http://127.0.0.1:1/v1",
    "endpoint": "completions",
}

TOY = Architecture("toy", num_layers=4, hidden_size=64, num_attention_heads=4)


def make_setting(num_prompt_tokens, num_output_tokens, runtimes_s=(0.1, 0.2, 0.4), **change):
    sizes = {"num_prompt_tokens": num_prompt_tokens, "num_output_tokens": num_output_tokens, "batch_size": 1}
    return {**sizes, "warmups_s": [9.0], "runtimes_s": list(runtimes_s), **change}


def make_failed(num_prompt_tokens, num_output_tokens):
    setting = make_setting(num_prompt_tokens, num_output_tokens, error={"type": "OutOfMemoryError", "message": "full"})
    del setting["runtimes_s"]
    return setting


SETTINGS = [make_setting(1, 1), make_setting(1, 2, [0.25]), make_setting(16, 1, [0.5, 0.75])]


def make_trial(number=0, *, p=16, o=4, start_s=0.1, step_s=0.01, **fields):
    times_s = [start_s + step_s * index for index in range(o)]
    return {
        "num_prompt_tokens": p,
        "num_output_tokens": o,
        "trial": number,
        "is_warmup": False,
        "sent_at": "2026-11-21T10:00:00.000001+00:00",
        "definitions": "client-streamed",
        "time_to_first_token_s": times_s[0],
        "chunk_times_s": times_s,
        "runtime_s": times_s[-1] + 0.001,
        "usage": {"prompt_tokens": p, "completion_tokens": o, "prompt_tokens_details": {"cached_tokens": 0}},
        "status": 200,
        **fields,
    }


TRIALS = [make_trial(0, is_warmup=True), make_trial(0), make_trial(1), make_trial(0, p=1, o=1)]


def write_log(path, records=SETTINGS, header=HEADER, *, finish=True):
    """A log of settings or, where the header is of an API, of trials."""
    with Journal(path, header) as journal:
        for record in records:
            journal.append(journal.log.measured, record)
        if finish:
            journal.finish()
    return path


def write_api_log(path, trials=TRIALS, header=API_HEADER, *, finish=True):
    return write_log(path, trials, header, finish=finish)


def write_toy_log(path, *, batch_sizes=(1,), settings=None, **changes):
    """A log of ``TOY`` with runtime 0.1 p + 0.02 (o - 1) + 1 in every trial; or with given settings."""
    header = {**HEADER, "model": "toy", "hardware": "box", "software": {"megatron-core": "0.16", "torch": "2"},
              "architecture": TOY.to_dict(), "num_layers_profiled": 4, **changes}  # fmt: skip
    settings = settings or [
        {"num_prompt_tokens": p, "num_output_tokens": o, "batch_size": b,
         "runtimes_s": [b * (0.1 * p + 0.02 * (o - 1) + 1)] * 2}
        for b in batch_sizes for p in (1, 2, 4) for o in (1, 2)
    ]  # fmt: skip
    return write_log(path, settings, header)


# Campaigns and commands

SWEEP = ("--all-num-input-tokens", "1", "4", "--all-num-output-tokens", "1", "3")
TINY = (*SWEEP, "--num-warmup", "1", "--num-trials", "2", "--device", "cpu")
CONFIG = {"model_type": "gpt2", "n_layer": 2, "n_embd": 32, "n_head": 2, "vocab_size": 256, "n_positions": 64,
          "activation_function": "gelu_new"}  # fmt: skip


def write_config(path, **change):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**CONFIG, **change}))
    return str(path.name)


def write_log_of(job, settings=None, *, finish=True, **change):
    """The log of a job that timed its settings, or other ones, in 1 s each."""
    header = {"hardware": "box", "software": {"megatron-core": "1", "torch": "2"}, **job.measurement.header(), **change}
    if settings is None:
        settings = [{**setting, "runtimes_s": [1.0]} for setting in job.measurement.settings()]
    return write_log(job.log, settings, header, finish=finish)


def parser_of(name):
    """Parser of one subcommand."""
    parser = Parser(prog=f"idealized-runtime {name}")
    import_module(f"idealized_runtime.cli.{COMMANDS[name][0]}").add_arguments(parser)
    return parser


def flags_of(*names):
    """Flags that any of the subcommands has."""
    return {flag for name in names for action in parser_of(name)._actions for flag in action.option_strings}


# Frames

PROMPT_TIMES_S = {1: 0.02, 64: 0.025, 128: 0.03, 512: 0.09}
OUTPUT_SIZES = (1, 2, 8, 32)


def make_runtimes(prompt_times_s=PROMPT_TIMES_S, output_sizes=OUTPUT_SIZES, *, g=0.02, slope=0.0) -> pd.DataFrame:
    """Noiseless runtimes with a known answer."""
    rows = [(p, o, time_s + (o - 1) * (g + slope * p)) for p, time_s in prompt_times_s.items() for o in output_sizes]
    return pd.DataFrame(rows, columns=["num_prompt_tokens", "num_output_tokens", "runtime_s"])


def make_trials(rng, *, num_trials=10, noise=0.01, **kwargs) -> pd.DataFrame:
    """Runtimes with proportional noise, one row a trial."""
    runtimes = make_runtimes(**kwargs)
    trials = runtimes.loc[runtimes.index.repeat(num_trials)].reset_index(drop=True)
    scatter = 1 + noise * rng.standard_normal(len(trials))
    return trials.assign(trial=np.arange(len(trials)) % num_trials, runtime_s=trials["runtime_s"] * scatter)


START = pd.Timestamp("2026-01-05T10:00:00Z")


def make_requests(runtime_s, **columns) -> pd.DataFrame:
    """One row a request in the columns of ``read_requests``: successes, sent one after the other unless said."""
    runtime_s = np.asarray(runtime_s, dtype=float)
    frame = pd.DataFrame(
        {
            "model": "tiny",
            "hardware": "test",
            "software": "test",
            "num_prompt_tokens": 8,
            "num_output_tokens": 4,
            "trial": np.arange(len(runtime_s)),
            "is_warmup": False,
            "block": pd.array([pd.NA] * len(runtime_s), dtype="Int64"),
            "load": None,
            "num_parallel": pd.array([pd.NA] * len(runtime_s), dtype="Int64"),
            "rate_per_s": np.nan,
            "repetition": pd.array([pd.NA] * len(runtime_s), dtype="Int64"),
            "scheduled_at": pd.DatetimeIndex([pd.NaT] * len(runtime_s), tz="UTC"),
            "sent_at": START + pd.to_timedelta(np.cumsum(runtime_s) - runtime_s, unit="s"),
            "time_to_first_token_s": runtime_s / 2,
            "runtime_s": runtime_s,
            "time_per_output_token_s": runtime_s / 6,
            "inter_chunk_times_s": [np.full(3, one_s / 6) for one_s in runtime_s],
            "error_type": None,
            "is_held_back": False,
            "definitions": "client-streamed",
            "deviations": "",
            "notes": "",
            "is_fit": True,
        }
    )
    return frame.assign(**columns)


BATCH_SIZES = (1, 2, 4, 8, 16, 32)


def prompt_pass_s(tokens):
    return 0.01 + 2e-4 * tokens


def token_pass_s(k, context=144.0, *, per_context_token_s=0.0):
    return np.maximum(0.02, 0.012 + 0.002 * k) + per_context_token_s * k * (context - 144.0)


def make_timings(
    *, num_stages=2, token_share=0.6, prompt_share=0.5, prompt_sizes=(128,), output_sizes=(32,), rng=None, **kwargs
):
    """Timings of a pipeline with a known answer: every B, k and m, with noise of 2 % where there is an ``rng``."""
    rows = [
        (p, o, batch, m, k)
        for p in prompt_sizes
        for o in output_sizes
        for batch in BATCH_SIZES
        for k in BATCH_SIZES
        for m in sorted({1, batch})
        if k <= batch
    ]
    timings = pd.DataFrame(rows, columns=SETTING_COLUMNS).assign(pipeline_parallel_size=num_stages)
    p, o, batch, m, k = (timings[name].to_numpy(float) for name in SETTING_COLUMNS)
    noise = [1 + (0 if rng is None else 0.02 * rng.standard_normal(len(timings))) for _ in range(2)]
    prompt_s = prompt_pass_s(m * p) * num_passes(1, batch / m, prompt_share)
    generation_s = token_pass_s(k, p + o / 2, **kwargs) * num_passes(o - 1, batch / k, token_share)
    timings = timings.assign(prompt_encoding_time_s=prompt_s * noise[0], generation_time_s=generation_s * noise[1])
    return timings.assign(runtime_s=timings["prompt_encoding_time_s"] + timings["generation_time_s"])


# Options of an Architecture

LLAMA = {
    "swiglu": True,
    "normalization": "RMSNorm",
    "position_embedding_type": "rope",
    "add_bias_linear": False,
    "add_qkv_bias": False,
    "untie_embeddings_and_output_weights": True,
    "num_query_groups": 2,
    "ffn_hidden_size": 100,
}


# Small configurations of every family, beside transformers' own

SIZES = {
    "num_hidden_layers": 4,
    "hidden_size": 48,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 80,
    "vocab_size": 99,
    "max_position_embeddings": 64,
}

GPT_SIZES = {"n_layer": 4, "n_embd": 48, "n_head": 6, "n_positions": 64, "vocab_size": 99}

BLOOM_SIZES = {"n_layer": 4, "hidden_size": 48, "n_head": 6, "vocab_size": 99}

FALCON_SIZES = {name: SIZES[name] for name in SIZES if name not in ("num_key_value_heads", "intermediate_size")}

OPT_SIZES = {**FALCON_SIZES, "ffn_dim": 72}

MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}

DEEPSEEK = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "q_lora_rank": 20,
            "kv_lora_rank": 12, "qk_nope_head_dim": 10, "qk_rope_head_dim": 6, "v_head_dim": 14,
            "num_key_value_heads": 6}  # fmt: skip

LLAMA_4 = {"num_local_experts": 4, "head_dim": 16, "intermediate_size_mlp": 56}

# Small shapes of every family; head_dim where the default of the family's class would be large.
FAMILIES = {
    "gpt2": GPT_SIZES,
    "gptj": {**GPT_SIZES, "rotary_dim": 4},
    "gpt_neox": SIZES,
    "opt": OPT_SIZES,
    "bloom": BLOOM_SIZES,
    "falcon": FALCON_SIZES,
    "llama": SIZES,
    "llama4_text": {**SIZES, **LLAMA_4},
    "mistral": SIZES,
    "mixtral": {**SIZES, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2": SIZES,
    "qwen2_moe": {**SIZES, **MOE, "shared_expert_intermediate_size": 40},
    "qwen3": SIZES,
    "qwen3_moe": {**SIZES, **MOE},
    "gemma": {**SIZES, "head_dim": 16},
    "gemma2": {**SIZES, "head_dim": 16},
    "gemma3_text": {**SIZES, "head_dim": 16},
    "phi3": {**SIZES, "pad_token_id": 0},
    "olmo2": SIZES,
    "deepseek_v2": {**SIZES, **DEEPSEEK},
    "deepseek_v3": {**SIZES, **DEEPSEEK, "n_group": 2, "topk_group": 1},
    "gpt_oss": {**SIZES, "num_local_experts": 4, "num_experts_per_tok": 3},
}


def hf_config(family, **change):
    """The configuration that transformers makes of a small shape of this family."""
    transformers = pytest.importorskip("transformers")
    return transformers.AutoConfig.for_model(family, **{**FAMILIES[family], **change})


def class_of(family):
    """The class of configurations that transformers has for a model type."""
    transformers = pytest.importorskip("transformers")
    if family == "step3p5":
        # The language model of step3p7, which has no entry of its own.
        from transformers.models.step3p7.configuration_step3p7 import Step3p7TextConfig

        return Step3p7TextConfig
    return transformers.CONFIG_MAPPING[family]


def num_params_of_model(config):
    """Parameters of the model that transformers builds, a tied matrix once; a body without head gets one."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
            model = transformers.AutoModelForCausalLM.from_config(config)
        elif config.model_type == "step3p5":
            from transformers.models.step3p7.modeling_step3p7 import Step3p7TextModel

            model = Step3p7TextModel(config)
        else:
            model = transformers.AutoModel.from_config(config)
    has_head = model.get_output_embeddings() is not None or getattr(config, "tie_word_embeddings", False)
    head = 0 if has_head else config.vocab_size * config.hidden_size
    return head + sum(parameter.numel() for parameter in model.parameters())


def written(config):
    """A config.json as transformers writes it, with every option."""
    return json.loads(config.to_json_string(use_diff=False))


TEXT = "The stopwatch doesn't lie: 12 tokens, 3 models,  ünïcode — 日本語.\n\nAgain\tand again, the stopwatch.\n"


def write_gpt2_files(folder, text=TEXT * 8, vocab_size=320):
    """vocab.json and merges.txt in GPT-2's format, learnt from a text; their flags."""
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator([text], vocab_size=vocab_size, min_frequency=2, show_progress=False)
    vocab_file, merge_file = map(str, tokenizer.save_model(str(folder)))
    return {"vocab_file": vocab_file, "merge_file": merge_file}


# Notebooks and figures

# "/" that begins a path of two parts or more; what stands before it rules out URLs and closing tags.
_ABSOLUTE_PATH = re.compile(r"(?<![\w.:/<~*])/(?!/)[\w.~-]+/[\w.~-]+|\b[A-Za-z]:\\\w")


def committed_notebook_faults(path) -> list[str]:
    """What keeps a notebook from being committed; empty for one that was executed from the top.

    Returns
    -------
    list of str
        A sentence a fault: a cell without execution or out of order, an error among the outputs, an
        absolute path in an output, a timestamp, a cell over 12 lines, a function definition.
    """
    notebook = nbformat.read(path, as_version=4)
    faults = []
    code_cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    for number, cell in enumerate(code_cells, start=1):
        where = f"{path}: code cell {number}"
        if cell.execution_count != number:
            faults.append(f"{where} has execution count {cell.execution_count}; run the notebook from the top")
        if len(cell.source.splitlines()) > 12:
            faults.append(f"{where} has over 12 lines; move code into the package")
        if re.search(r"^\s*(async\s+)?def |^\s*class |import \*", cell.source, flags=re.MULTILINE):
            faults.append(f"{where} defines a function or class, or imports *; move code into the package")
        if set(cell.metadata) & {"execution", "papermill"}:
            faults.append(f"{where} has timestamps in its metadata")
        faults += [f"{where} {fault}" for output in cell.outputs for fault in _output_faults(output)]
    if "papermill" in notebook.metadata:
        faults.append(f"{path}: has timestamps of papermill in its metadata")
    return faults


def _output_faults(output) -> list[str]:
    if output.output_type == "error":
        return [f"ends in an error: {output.ename}: {output.evalue}"]
    data = output.get("data", {})
    texts = [output.get("text", "")] + [text for kind, text in data.items() if kind.startswith("text/")]
    found = [match[0] for text in texts if (match := _ABSOLUTE_PATH.search(text))]
    return [f"has an absolute path in its output: {found_path}" for found_path in found[:1]]


def lines_by_label(ax):
    return {line.get_label(): line for line in ax.lines}
