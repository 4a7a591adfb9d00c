"""The profiler on servers that nobody here wrote: mlx-lm, which runs a model, and GuideLLM's mock server."""

import asyncio
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from benchmarks import api as benchmark
from idealized_runtime.api.budget import Budget
from idealized_runtime.api.client import ApiClient
from idealized_runtime.api.endpoint import Endpoint
from idealized_runtime.api.trials import Retries, TrialSender
from idealized_runtime.cli.main import main
from idealized_runtime.fits import RuntimeModel, read_parameters
from idealized_runtime.fits.denoised import fit_denoised
from idealized_runtime.measurements.published import ROOT
from idealized_runtime.records import read_requests, read_trials

VOCAB_SIZE, HIDDEN_SIZE, NUM_LAYERS, NUM_HEADS, FFN_SIZE = 512, 64, 2, 4, 128
EOS_TOKEN_ID = 1
TTFT_S, ITL_S = benchmark.TTFT_MS / 1e3, benchmark.ITL_MS / 1e3


def server_python(name):
    """Python of a server's environment; absent in continuous integration it is an error."""
    python = ROOT / ".servers" / name / "bin/python"
    if not python.exists():
        message = f"{name} is not installed: `make test` puts it into .servers/"
        if os.environ.get("CI") == "true":
            raise FileNotFoundError(message)
        pytest.skip(message)
    return python


def write_llama(folder):
    """A Llama of a few thousand random weights, and a tokenizer whose every token is a word."""
    rng = np.random.default_rng(0)

    def weight(*shape):
        return rng.normal(0, 0.02, shape).astype(np.float32)

    square, ones = (HIDDEN_SIZE, HIDDEN_SIZE), np.ones(HIDDEN_SIZE, np.float32)
    weights = {"model.norm.weight": ones, "lm_head.weight": weight(VOCAB_SIZE, HIDDEN_SIZE)}
    weights["model.embed_tokens.weight"] = weight(VOCAB_SIZE, HIDDEN_SIZE)
    for layer in range(NUM_LAYERS):
        name = f"model.layers.{layer}"
        weights |= {f"{name}.{norm}_layernorm.weight": ones for norm in ("input", "post_attention")}
        weights |= {f"{name}.self_attn.{part}_proj.weight": weight(*square) for part in "qkvo"}
        weights |= {f"{name}.mlp.{part}_proj.weight": weight(FFN_SIZE, HIDDEN_SIZE) for part in ("gate", "up")}
        weights[f"{name}.mlp.down_proj.weight"] = weight(HIDDEN_SIZE, FFN_SIZE)
    folder.mkdir()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCAB_SIZE,
        "hidden_size": HIDDEN_SIZE, "intermediate_size": FFN_SIZE, "num_hidden_layers": NUM_LAYERS,
        "num_attention_heads": NUM_HEADS, "num_key_value_heads": NUM_HEADS, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 4096, "rope_theta": 1e4, "tie_word_embeddings": False, "bos_token_id": 0,
        "eos_token_id": EOS_TOKEN_ID, "torch_dtype": "float32",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder):
    # Words of letters only: what a prompt of random words is made of.
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["<s>", "</s>", *(a + b for a in letters for b in letters)][:VOCAB_SIZE]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="</s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>",
              "chat_template": "{% for m in messages %}{{ m['content'] }}{% endfor %}"}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="module")
def mlx(llama):
    """Address of mlx-lm's server with the model loaded."""
    port = benchmark.free_port()
    command = [server_python("mlx"), "-m", "mlx_lm", "server", "--model", llama, "--port", port]
    with benchmark.running(command, port) as base_url:
        yield base_url


@pytest.fixture(scope="module")
def mock():
    """Address of GuideLLM's mock server."""
    server_python("guidellm")
    with benchmark.mock_server() as base_url:
        yield base_url


FORCED = ("--force-with", "logit_bias", "--eos-token-ids", EOS_TOKEN_ID)


@pytest.fixture(scope="module")
def mlx_log(mlx, llama, tmp_path_factory):
    """The command of the guide."""
    log = tmp_path_factory.mktemp("logs") / "llama.jsonl"
    extra = (*FORCED, "--tokenizer", llama / "tokenizer.json")
    return benchmark.profile(mlx, log, prompt_sizes=[1, 64, 512], output_sizes=[1, 8, 32], num_trials=4,
                             model="default_model", extra=extra)  # fmt: skip


def test_every_trial_of_a_real_server_has_the_sizes_asked_for(mlx_log):
    requests = read_requests(mlx_log).query("~is_warmup")
    assert len(requests) == 36
    assert requests["is_fit"].all(), requests[["deviations", "error_message"]].drop_duplicates()
    assert (requests["num_prompt_tokens_reported"] == requests["num_prompt_tokens"]).all()
    assert (requests["num_output_tokens_reported"] == requests["num_output_tokens"]).all()
    assert (requests["num_chunks"] == requests["num_output_tokens"]).all()
    assert (requests["num_cached_prompt_tokens"] <= 2).all(), "no prefix cache answered"


def test_times_of_a_real_server_are_in_order(mlx_log):
    # On a busy machine this client reads some of its quick tokens together: such answers have no time to the first.
    requests = read_requests(mlx_log).query("is_fit and not is_held_back")
    assert len(requests) >= 12
    assert (requests["time_to_headers_s"] <= requests["time_to_first_token_s"]).all()
    assert (requests["time_to_first_token_s"] <= requests["runtime_s"]).all()
    later = requests[requests["num_output_tokens"] > 1]
    decode_s = later["time_per_output_token_s"] * (later["num_output_tokens"] - 1)
    assert (later["time_to_first_token_s"] + decode_s <= later["runtime_s"] + 1e-9).all()


def test_real_server_leads_to_parameters_and_a_figure(mlx_log, tmp_path, capsys):
    parameters, figure = tmp_path / "api.json", tmp_path / "figure"
    assert main(["api", "fit", str(mlx_log), "--out", str(parameters), "--figure", str(figure)]) == 0
    model = read_parameters(parameters)["default_model"]
    assert model.time_per_output_token_s > 0
    assert model.overhead_s >= 0
    assert model.predict(512, 32) > model.predict(1, 1) > 0
    assert (tmp_path / "figure.png").exists()
    assert "time per output token" in capsys.readouterr().out


def test_prompts_calibrated_by_a_real_server_have_the_sizes_asked_for(mlx, tmp_path):
    log = benchmark.profile(mlx, tmp_path / "log.jsonl", prompt_sizes=[3, 100], output_sizes=[2], num_trials=2,
                            model="default_model", extra=(*FORCED, "--endpoint", "chat"))  # fmt: skip
    requests = read_requests(log).query("~is_warmup")
    assert requests["num_prompt_tokens_reported"].tolist() == requests["num_prompt_tokens"].tolist()


def test_whole_answers_of_a_real_server_are_timed(mlx, llama, tmp_path):
    extra = (*FORCED, "--no-stream", "--tokenizer", llama / "tokenizer.json")
    log = benchmark.profile(mlx, tmp_path / "log.jsonl", prompt_sizes=[16], output_sizes=[1, 4], num_trials=2,
                            model="default_model", extra=extra)  # fmt: skip
    requests = read_requests(log).query("~is_warmup")
    assert requests["is_fit"].all()
    assert set(requests["definitions"]) == {"client-whole"}


def test_prompt_sent_twice_is_told_by_the_cache_of_a_real_server(mlx):
    async def send_twice():
        endpoint = Endpoint(mlx, "default_model", forcings=("logit_bias",), eos_token_ids=(EOS_TOKEN_ID,))
        async with ApiClient(endpoint) as client:
            sender = TrialSender(client, Budget(), Retries(0))
            trial = {"num_prompt_tokens": 200, "num_output_tokens": 2, "trial": 0}
            return [await sender.send(lambda _: "ab cd " * 100, trial, lambda _: None) for _ in range(2)]

    _, second = asyncio.run(send_twice())
    assert second["deviations"] == [f"{second['usage']['prompt_tokens_details']['cached_tokens']} prompt tokens cached"]


def test_model_that_a_real_server_does_not_have_stops_at_once(mlx, tmp_path):
    sizes = ["--all-num-input-tokens", "1", "--all-num-output-tokens", "1"]
    where = ["--base-url", mlx, "--model", "nobody/nothing", "--log", tmp_path / "log.jsonl"]
    command = [sys.executable, "-m", "idealized_runtime", "api", "profile", *where, *sizes]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert "idealized-runtime api profile: error: HTTP 404: " in answer.stderr


# A server of known speed: it sleeps 150 ms before the first token, 10 ms before each further one, whatever the prompt.

# What holds the machine up only adds to a sleeping server's times, so the least of enough trials is its own; a quiet
# machine has it at once.
MAX_TRIALS = (4, 8, 16, 32)
ERRORS = {"time to first token": 0.05, "time per output token": 0.03, "g": 0.03, "overhead": 0.05,
          "prompt of 256 tokens": 0.4}  # fmt: skip


def measure(log):
    """What the log says of the server's speed, in seconds."""
    requests = read_requests(log).query("is_fit")
    long = requests[requests["num_output_tokens"] == 24]
    # A first token that comes late makes the others seem fast: trials of even steps only.
    even = [np.max(times_s) < 1.2 * np.median(times_s) for times_s in long["inter_chunk_times_s"]]
    model = fit_denoised(read_trials(log), fit=RuntimeModel.fit)
    return {
        "time to first token": requests["time_to_first_token_s"].min(),
        "time per output token": long.loc[even, "time_per_output_token_s"].min(),
        "g": model.time_per_output_token_s,
        # By the convention of the fit one prompt token takes as long as an output token, and the rest is overhead.
        "overhead": model.overhead_s,
        "prompt of 256 tokens": model.prompt_encoding_time_s(256),
    }


def true_speed():
    """What the server's sleeps take here, in seconds: asyncio sleeps longer than it is told, by 1 to 3 % of 10 ms."""
    first_s, token_s = (least_sleep_s(seconds, count) for seconds, count in ((TTFT_S, 1), (ITL_S, 23)))
    return {"time to first token": first_s, "time per output token": token_s, "g": token_s,
            "overhead": first_s - token_s, "prompt of 256 tokens": token_s}  # fmt: skip


def least_sleep_s(seconds, count):
    async def sleep():
        start_s = time.perf_counter()
        for _ in range(count):
            await asyncio.sleep(seconds)
        return (time.perf_counter() - start_s) / count

    return min(asyncio.run(sleep()) for _ in range(5))


@pytest.fixture(scope="module")
def speeds(mock, tmp_path_factory):
    log = tmp_path_factory.mktemp("logs") / "mock.jsonl"
    for num_trials in MAX_TRIALS:
        benchmark.profile(mock, log, prompt_sizes=[1, 256], output_sizes=[1, 8, 24], num_trials=num_trials)
        found, true = measure(log), true_speed()
        if all(found[name] == pytest.approx(true[name], rel=error) for name, error in ERRORS.items()):
            break
    return found, true


@pytest.mark.parametrize("name", ERRORS)
def test_speed_of_the_server_is_found(speeds, name):
    found, true = speeds
    assert found[name] == pytest.approx(true[name], rel=ERRORS[name])


def lower_quartiles(requests):
    return requests[list(benchmark.MEASURES)].quantile(0.25)


def test_guidellm_measures_the_same(mock, tmp_path):
    # What holds up one of the two for a while is none of either's measure: they may take turns again.
    for _ in range(3):
        theirs = lower_quartiles(benchmark.measure_with_guidellm(mock, tmp_path, num_requests=8))
        ours = lower_quartiles(benchmark.measure_with_ours(mock, tmp_path, num_requests=8))
        if ours.to_dict() == pytest.approx(theirs.to_dict(), rel=0.05):
            break
    assert ours.to_dict() == pytest.approx(theirs.to_dict(), rel=0.05)
