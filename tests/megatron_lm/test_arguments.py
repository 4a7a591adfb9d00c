import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from makers import write_gpt2_files

import generate_text
from idealized_runtime.architectures import get_architecture
from megatron_lm.arguments import parse_arguments
from megatron_lm.measurement import Measurement

ROOT = Path(__file__).resolve().parents[2]
SIZES = ("--num-layers", "2", "--hidden-size", "64", "--num-attention-heads", "4")
SWEEP = ("--all-num-input-tokens", "1", "16", "--all-num-output-tokens", "1", "2")
UNTIL = (*SIZES, *SWEEP, "--target-error", "0.02")


def parse(*argv):
    return parse_arguments([str(word) for word in argv])


@pytest.fixture
def error_of():
    """Message with which arguments are refused."""

    def refuse(*argv):
        with pytest.raises((ValueError, OSError)) as refused:
            parse(*argv)
        return str(refused.value)

    return refuse


def test_what_is_refused_is_said_in_one_line_under_the_name_of_the_program(capsys):
    assert generate_text.main(["--architecture", "gpt2-smal", *SWEEP]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("generate_text.py: error: no architecture named 'gpt2-smal'")


def test_help_answers_in_a_second_without_torch():
    program = (
        "import sys, generate_text\n"
        "try: generate_text.main(['-h'])\n"
        "except SystemExit as stopped: assert stopped.code == 0\n"
        "heavy = {'torch', 'megatron', 'pandas', 'transformers', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    seconds = []
    for _ in range(3):
        start_s = time.perf_counter()
        answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
        seconds.append(time.perf_counter() - start_s)
        assert answer.returncode == 0, answer.stderr
    assert min(seconds) < 1


def test_help_groups_every_flag_of_the_2023_driver(capsys):
    with pytest.raises(SystemExit):
        parse("-h")
    answer = capsys.readouterr().out
    for title in ("model:", "tokenizer:", "text generation:", "timing and log:"):
        assert f"\n{title}\n" in answer
    generation = answer.split("\ntext generation:\n")[1].split("\n\n")[0]
    for flag in ("prompts-file", "all-num-input-tokens", "all-num-output-tokens", "temperature", "top-p", "top-k",
                 "out-seq-length"):  # fmt: skip
        assert f"--{flag} " in generation
    for flag in ("architecture", "hf-config", "log", "num-trials", "num-warmup", "device", "inference-engine", "fp16",
                 "bf16", "seed", "tensor-model-parallel-size", "pipeline-model-parallel-size"):  # fmt: skip
        assert f"--{flag}" in answer


def test_target_takes_the_place_of_trials():
    arguments = parse(*UNTIL, "--max-seconds", 9)
    assert (arguments.num_warmup, arguments.num_trials, arguments.num_blocks) == (1, None, None)
    goal = {"target_error": 0.02, "level": 0.95, "max_seconds": 9.0, "of": "each"}
    assert Measurement.from_arguments(arguments).header()["sweep"]["target"] == goal


def test_logs_of_other_models_tell_what_to_expect():
    arguments = parse(
        "--architecture", "gpt2-small", *SWEEP, "--target-error", 0.02, "--logs", "cpu", "--target", "total"
    )
    header = Measurement.from_arguments(arguments).header()["sweep"]["target"]
    assert (header["logs"], header["of"]) == ("cpu", "total")
    expected_s = arguments.goal.prior.expected(np.array([128]), np.array([8]))
    assert expected_s == pytest.approx(0.24, rel=0.3)


def test_sizes_follow_from_the_queries_where_they_are_not_given(tmp_path):
    path = tmp_path / "queries.csv"
    path.write_text("a,b\n" + "\n".join(f"{p},{p // 10 + 1}" for p in range(10, 500)))
    asked = ("--target-error", 0.02, "--queries", path, "--columns", "num_prompt_tokens=a,num_output_tokens=b")
    arguments = parse(*SIZES, *asked)
    assert (arguments.all_num_input_tokens[0], arguments.all_num_input_tokens[-1]) == (10, 499)
    assert 8 <= len(arguments.all_num_input_tokens) <= 20
    # Powers of two, and what is asked for at the ends and at a third and two thirds of the queries.
    assert arguments.all_num_output_tokens == [1, 2, 4, 8, 16, 18, 32, 34, 50]
    given = parse(*SIZES, *asked, *SWEEP)
    assert (given.all_num_input_tokens, given.all_num_output_tokens) == ([1, 16], [1, 2])


def test_defaults_are_the_papers():
    arguments = parse(*SIZES, *SWEEP)
    assert (arguments.num_warmup, arguments.num_trials) == (10, 50)
    assert (arguments.temperature, arguments.top_k, arguments.top_p) == (1.0, 0, 0.0)
    assert (arguments.batchings, arguments.num_layers_profiled) == ([(1, 1, 1)], [2])
    assert (arguments.tensor_model_parallel_size, arguments.pipeline_model_parallel_size) == (1, 1)
    assert arguments.log is None


def test_arguments_of_the_2023_shell_script_are_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    files = write_gpt2_files(tmp_path)
    arguments = parse(
        "--tensor-model-parallel-size", 8, "--pipeline-model-parallel-size", 1, *SIZES, "--num-attention-heads", 8,
        "--max-position-embeddings", 128, "--tokenizer-type", "GPT2BPETokenizer", "--fp16", "--micro-batch-size", 1,
        "--seq-length", 128, "--out-seq-length", 128, "--temperature", "1.0", "--vocab-file", files["vocab_file"],
        "--merge-file", files["merge_file"], "--top-p", 0.9, "--seed", 42, "--prompts-file", tmp_path / "prompts.txt",
        "--make-vocab-size-divisible-by", 100,
        "--all-num-output-tokens", 1, 2, 4, "--all-num-input-tokens", 1, 16, 32,
    )  # fmt: skip
    assert arguments.all_num_output_tokens == [1, 2, 4]
    assert arguments.all_num_input_tokens == [1, 16, 32]
    assert (arguments.seed, arguments.top_p, arguments.fp16) == (42, 0.9, True)
    architecture = arguments.architecture
    assert (architecture.num_layers, architecture.hidden_size, architecture.num_attention_heads) == (2, 64, 8)
    assert architecture.max_position_embeddings == 128
    # Megatron pads 320 tokens or fewer to a multiple of 100 x 8 ranks.
    assert architecture.vocab_size == 800


@pytest.mark.parametrize(
    "flag", ["--local-rank=0", "--local_rank=1", "--no-load-optim", "--distributed-backend=nccl", "--hidden-dropout=0"]
)
def test_flags_that_change_nothing_timed_are_accepted(flag):
    assert parse(flag, *SIZES, *SWEEP).num_layers_profiled == [2]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--load", "checkpoints/gpt2"), "--load: weights are random, which changes no runtime; leave it out"),
        (("--genfile", "x.json", "--num-samples", 2), "--genfile: no text is read or kept"),
        (("--batch-size", 2), "--batch-size: use --micro-batch-size"),
        (("--model-parallel-size", 2), "use --tensor-model-parallel-size"),
        (("--all-tokens-to-generate", 0, 1, 2), "use --all-num-output-tokens"),
        (("--recompute",), "--recompute: text is generated with a cache"),
        (("--tokenizer-type", "ByteTokenizer", "--vocab-file", "v.json"), "--vocab-file: --tokenizer-type ByteTok"),
    ],
)
def test_flags_of_other_scripts_of_megatron_are_refused_with_what_to_do(error_of, argv, message):
    assert message in error_of(*SIZES, *SWEEP, *argv)


def test_gpt2s_tokenizer_is_taken_where_its_files_are_given(tmp_path):
    files = write_gpt2_files(tmp_path)
    named = ("--vocab-file", files["vocab_file"], "--merge-file", files["merge_file"])
    assert parse(*SIZES, *SWEEP, *named).tokenizer_type == "GPT2BPETokenizer"
    assert parse(*SIZES, *SWEEP).tokenizer_type == "ByteTokenizer"


def test_flags_are_taken_with_underscores_too(capsys):
    assert generate_text.main(["--top_p", "1.5", *SIZES, *SWEEP]) == 2
    assert "--top-p must lie in [0, 1]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "vocab_size"),
    [
        ((), 50304),
        (("--vocab-size", 1000), 1024),
        (("--vocab-size", 1024), 1024),
        (("--vocab-size", 1000, "--make-vocab-size-divisible-by", 1), 1000),
        (("--vocab-size", 1000, "--tensor-model-parallel-size", 4), 1024),
        (("--vocab-size", 1025, "--tensor-model-parallel-size", 4), 1536),
    ],
)
def test_vocabulary_is_padded_as_megatron_pads_it(argv, vocab_size, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4" if "--tensor-model-parallel-size" in argv else "1")
    assert parse(*SIZES, *SWEEP, *argv).architecture.vocab_size == vocab_size


def test_every_shape_flag_reaches_the_architecture():
    architecture = parse(
        *SIZES, *SWEEP, "--ffn-hidden-size", 100, "--num-query-groups", 2, "--swiglu", "--normalization", "RMSNorm",
        "--position-embedding-type", "rope", "--rotary-base", 500000, "--disable-bias-linear",
        "--untie-embeddings-and-output-weights", "--max-position-embeddings", 96,
    ).architecture  # fmt: skip
    assert architecture.ffn_hidden_size == 100
    assert architecture.num_query_groups == 2
    assert architecture.swiglu
    assert architecture.normalization == "RMSNorm"
    assert architecture.position_embedding_type == "rope"
    assert architecture.rotary_base == 500000
    assert not architecture.add_bias_linear
    assert not architecture.add_qkv_bias
    assert architecture.untie_embeddings_and_output_weights
    assert architecture.max_position_embeddings == 96


def test_sizes_give_gpt_where_nothing_else_is_said():
    architecture = parse(*SIZES, *SWEEP, "--seq-length", 512).architecture
    assert architecture.max_position_embeddings == 512
    assert architecture.ffn_hidden_size == 256
    assert (architecture.normalization, architecture.position_embedding_type) == ("LayerNorm", "learned_absolute")
    assert architecture.add_bias_linear
    assert not architecture.swiglu


def test_architecture_is_taken_from_the_registry():
    assert parse("--architecture", "gpt2-small", *SWEEP).architecture == get_architecture("gpt2-small")


def test_unknown_architecture_is_named(error_of):
    assert "gpt2-smal" in error_of("--architecture", "gpt2-smal", *SWEEP)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_architecture_is_taken_from_a_hugging_face_config(tmp_path, encoding):
    folder = tmp_path / "tiny-gpt2"
    folder.mkdir()
    config = {"model_type": "gpt2", "n_layer": 3, "n_embd": 48, "n_head": 4, "vocab_size": 99, "n_positions": 77}
    (folder / "config.json").write_text(json.dumps(config), encoding=encoding)
    architecture = parse("--hf-config", folder / "config.json", *SWEEP).architecture
    assert (architecture.name, architecture.num_layers, architecture.hidden_size) == ("tiny-gpt2", 3, 48)
    assert (architecture.vocab_size, architecture.max_position_embeddings) == (99, 77)
    (folder / "other.json").write_text(json.dumps(config))
    assert parse("--hf-config", folder / "other.json", *SWEEP).architecture.name == "other"


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), ("{", "not JSON"), ("[]", "not a JSON object"), ('{"model_type": "t5"}', "t5")],
)
def test_bad_hugging_face_config_is_named(tmp_path, error_of, content, message):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content)
    assert message in error_of("--hf-config", path, *SWEEP)


def test_repeated_sizes_are_one_setting():
    arguments = parse(*SIZES, "--all-num-input-tokens", 4, 1, 4, "--all-num-output-tokens", 2, 2, 1)
    assert arguments.all_num_input_tokens == [4, 1]
    assert arguments.all_num_output_tokens == [2, 1]


def test_out_seq_length_is_the_number_of_output_tokens_where_no_other_is_given():
    arguments = parse(*SIZES, "--all-num-input-tokens", 1, "--out-seq-length", 7)
    assert arguments.all_num_output_tokens == [7]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (SWEEP, "which model?"),
        ((*SIZES[:4], *SWEEP), "missing: --num-attention-heads"),
        ((*SIZES, "--architecture", "gpt2-small", *SWEEP), "give one of"),
        (("--hf-config", "x", "--architecture", "gpt2-small", *SWEEP), "give one of"),
        (("--architecture", "gpt2-small", "--swiglu", *SWEEP), "--swiglu: --architecture already says"),
        (("--architecture", "gpt2-small", "--seq-length", 8, *SWEEP), "--seq-length: --architecture already says"),
        (("--architecture", "gemma-2-9b", *SWEEP), "gemma-2-9b cannot be built here, only counted"),
        ((*SIZES, "--all-num-output-tokens", 1), "--all-num-input-tokens"),
        ((*SIZES, "--all-num-input-tokens", 1), "--all-num-output-tokens, or --out-seq-length"),
        ((*SIZES, *SWEEP, "--all-num-input-tokens", 0), "at least 1; got '0'"),
        ((*SIZES, *SWEEP, "--all-num-output-tokens", 1, -2), "at least 1; got '-2'"),
        ((*SIZES, *SWEEP, "--num-trials", 0), "at least 1; got '0'"),
        ((*SIZES, *SWEEP, "--num-warmup", -1), "at least 0; got '-1'"),
        ((*SIZES, *SWEEP, "--num-trials", "many"), "must be an integer of at least 1; got 'many'"),
        ((*SIZES, *SWEEP, "--micro-batch-size", "1.5"), "must be an integer of at least 1; got '1.5'"),
        ((*SIZES, *SWEEP, "--fp16", "--bf16"), "exclude each other"),
        ((*SIZES, *SWEEP, "--num-attention-heads", 5), "must be a multiple of num_attention_heads (5)"),
        ((*SIZES, *SWEEP, "--num-query-groups", 3), "must be a multiple of num_query_groups (3)"),
        ((*SIZES, *SWEEP, "--rotary-base", "nan"), "rotary_base must be a positive number"),
        ((*SIZES, *SWEEP, "--seq-length", 64, "--max-position-embeddings", 32), "must not exceed"),
        ((*SIZES, *SWEEP, "--tokenizer-type", "GPT2BPETokenizer"), "needs --vocab-file"),
        ((*SIZES, *SWEEP, "--temperature", 0), "--temperature must be above 0"),
        ((*SIZES, *SWEEP, "--temperature", "nan"), "--temperature must be above 0"),
        ((*SIZES, *SWEEP, "--temperature", "inf"), "--temperature must be above 0"),
        ((*SIZES, *SWEEP, "--top-p", 1.1), "--top-p must lie in [0, 1]"),
        ((*SIZES, *SWEEP, "--top-p", "nan"), "--top-p must lie in [0, 1]"),
        ((*SIZES, *SWEEP, "--top-k", -1), "--top-k must be at least 0"),
        ((*SIZES, *SWEEP, "--seed", -1), "--seed must lie in [0, 2**63)"),
        ((*SIZES, *SWEEP, "--seed", 2**63), "--seed must lie in [0, 2**63)"),
        ((*SIZES, *SWEEP, "--log", ROOT), "is no regular file"),
        ((*SIZES, *SWEEP, "--log", "/dev/null"), "is no regular file"),
        ((*SIZES, *SWEEP, "--log", ROOT / "pyproject.toml" / "x.jsonl"), "is not a folder"),
        ((*SIZES, *SWEEP, "--max-seconds", 9), "--max-seconds: of --target-error, which is not there"),
        ((*SIZES, *SWEEP, "--queries", "q.csv", "--level", 0.9), "--queries, --level: of --target-error"),
        ((*SIZES, *SWEEP, "--target", "total", "--logs", "cpu"), "--target, --logs: of --target-error"),
        ((*UNTIL, "--num-trials", 3), "--num-trials: --target-error chooses as it goes; leave it out"),
        ((*UNTIL, "--num-blocks", 3), "--num-blocks: --target-error chooses as it goes; leave it out"),
        ((*UNTIL, "--columns", "num_prompt_tokens=a"), "--columns: of --queries, which is not there"),
        ((*UNTIL, "--queries", "no.csv"), "no.csv: no such file"),
        (
            (*UNTIL, "--global-batch-size", 2, "--logs", "cpu"),
            "of one sequence at a time, not of a batch: leave it out",
        ),
        ((*UNTIL, "--num-layers-profiled", 1, 2), "of one slice of the layers; got 2 slices"),
        ((*UNTIL, "--all-num-output-tokens", 4), "needs two numbers of output tokens or more"),
        ((*UNTIL, "--all-num-input-tokens", 10**5), "needs 100001 positions; gpt-l2-h64-a4 has 2048"),
        ((*UNTIL, "--target-error", 1.5), "--target-error: must be between 0 and 1"),
        ((*SIZES, "--target-error", 0.1), "--all-num-input-tokens"),
        # An abbreviation would change its meaning when a flag is added.
        ((*SIZES, *SWEEP, "--num-trial", 1), "unrecognized arguments: --num-trial"),
    ],
)
def test_wrong_arguments_are_refused_before_torch_is_imported(error_of, argv, message):
    assert message in error_of(*argv)


# Batches.


@pytest.mark.parametrize(
    ("argv", "batchings"),
    [
        (("--micro-batch-size", 4), [(4, 4, 4)]),
        (("--micro-batch-size", 1, 4), [(1, 1, 1), (4, 4, 4)]),
        (("--micro-batch-size", 4, "--token-micro-batch-size", 2), [(4, 4, 2)]),
        (("--global-batch-size", 6), [(6, 6, 6)]),
        (("--global-batch-size", 6, "--micro-batch-size", 2), [(6, 2, 6)]),
        (("--global-batch-size", 6, "--micro-batch-size", 2, "--token-micro-batch-size", 3), [(6, 2, 3)]),
        (("--global-batch-size", 2, 4, 4, "--token-micro-batch-size", 1, 4), [(2, 2, 1), (4, 4, 1), (4, 4, 4)]),
    ],
)
def test_batches_are_every_combination_whose_micro_batches_divide_the_batch(argv, batchings):
    assert parse(*SIZES, *SWEEP, *argv).batchings == batchings


@pytest.mark.parametrize(("batch_size", "size"), [(1, 1), (2, 1), (8, 4), (9, 3), (7, 1), (20, 10)])
def test_micro_batches_fill_the_pipeline_where_nothing_else_is_said(batch_size, size, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    argv = ("--pipeline-model-parallel-size", 2, "--global-batch-size", batch_size)
    assert parse(*SIZES, *SWEEP, *argv).batchings == [(batch_size, size, size)]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--global-batch-size", 8, "--token-micro-batch-size", 3), "--token-micro-batch-size 3: a batch must be cut"),
        (("--global-batch-size", 8, "--micro-batch-size", 16), "--micro-batch-size 16: a batch must be cut"),
        (("--global-batch-size", 8, 9, "--micro-batch-size", 4, "--token-micro-batch-size", 8),
         "--global-batch-size 9: a batch must be cut"),
        (("--global-batch-size", 0), "at least 1; got '0'"),
    ],
)  # fmt: skip
def test_batch_that_micro_batches_do_not_divide_is_refused(error_of, argv, message):
    assert message in error_of(*SIZES, *SWEEP, *argv)


# Parallelism and slices.


@pytest.mark.parametrize(
    ("num_ranks", "argv", "message"),
    [
        (1, ("--tensor-model-parallel-size", 2), "needs 2 processes; there are 1: start them with torchrun"),
        (4, ("--tensor-model-parallel-size", 2), "x --pipeline-model-parallel-size 1 needs 2 processes; there are 4"),
        (2, (), "needs 1 processes; there are 2"),
        (8, ("--tensor-model-parallel-size", 8), "of gpt-l2-h64-a4, 4; got 8: allowed are 1, 2, 4"),
        (2, ("--tensor-model-parallel-size", 2, "--num-query-groups", 1), "must divide num_query_groups"),
        (2, ("--tensor-model-parallel-size", 2, "--ffn-hidden-size", 99), "must divide ffn_hidden_size"),
        (4, ("--pipeline-model-parallel-size", 4), "must divide the number of layers; got 2 of the 2 layers"),
        (2, ("--pipeline-model-parallel-size", 2, "--num-layers-profiled", 1, 2), "got 1 of the 2 layers"),
        (1, ("--num-layers-profiled", 1, 3), "--num-layers-profiled 3: gpt-l2-h64-a4 has 2 layers"),
        (1, ("--num-layers-profiled", 0), "at least 1; got '0'"),
    ],
)
def test_model_that_cannot_be_shared_out_is_refused(monkeypatch, error_of, num_ranks, argv, message):
    monkeypatch.setenv("WORLD_SIZE", str(num_ranks))
    assert message in error_of(*SIZES, *SWEEP, *argv)


@pytest.mark.parametrize(
    ("change", "sizes", "message"),
    [
        ({"mlp_only_layers": [0]}, [2], "2: the layers of .* differ \\(moe_layer_freq = \\(0, 1, 1, 1\\)\\)"),
        ({"mlp_only_layers": [0]}, [4], None),
        ({}, [1, 3], None),
        ({"use_sliding_window": True, "sliding_window": 8}, [2, 3], "3: .*window_attn_skip_freq = 2"),
    ],
)
def test_slice_whose_layers_are_not_those_of_the_whole_is_refused(tmp_path, error_of, change, sizes, message):
    config = {"model_type": "qwen2_moe", "num_hidden_layers": 4, "hidden_size": 48, "num_attention_heads": 4,
              "num_key_value_heads": 4, "intermediate_size": 64, "moe_intermediate_size": 32, "vocab_size": 99,
              "shared_expert_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2,
              "max_position_embeddings": 64, **change}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    argv = ("--hf-config", tmp_path / "config.json", *SWEEP, "--num-layers-profiled", *sizes)
    if message is None:
        assert parse(*argv).num_layers_profiled == sizes
    else:
        assert re.search(message, error_of(*argv))


def test_slices_are_kept_in_order_and_without_repetition():
    assert parse(*SIZES, *SWEEP, "--num-layers-profiled", 2, 1, 2).num_layers_profiled == [2, 1]
