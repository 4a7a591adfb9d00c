import json
import re

import pytest
from makers import TEXT, write_gpt2_files

from megatron_lm.prompts import (
    DEFAULT_PROMPTS_FILES,
    TOKENIZER_TYPES,
    PromptTooShortError,
    encode_file,
    take_prompt,
    tokenizer_vocab_size,
)


@pytest.fixture
def prompts_file(tmp_path):
    def write(content):
        path = tmp_path / "prompts.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_byte_tokenizer_gives_every_byte_of_any_file(prompts_file):
    content = bytes(range(256)) + b"\r\n\xff\xfe\x00"
    assert encode_file(prompts_file(content), tokenizer_type="ByteTokenizer") == list(content)


def test_null_tokenizer_reads_token_ids(prompts_file):
    path = prompts_file("0 17\n50256\t3\r\n 4 ")
    assert encode_file(path, tokenizer_type="NullTokenizer") == [0, 17, 50256, 3, 4]


def test_null_tokenizer_refuses_text_and_names_the_tokenizers_for_it(prompts_file):
    with pytest.raises(ValueError, match=r"NullTokenizer reads token ids.*'What'.*ByteTokenizer or GPT2BPETokenizer"):
        encode_file(prompts_file("1 2 What"), tokenizer_type="NullTokenizer")


def test_gpt2_tokenizer_gives_the_ids_of_transformers(tmp_path, prompts_file):
    from transformers import GPT2Tokenizer

    files = write_gpt2_files(tmp_path)
    reference = GPT2Tokenizer.from_pretrained(str(tmp_path))
    token_ids = encode_file(prompts_file(TEXT), tokenizer_type="GPT2BPETokenizer", **files)
    assert token_ids == reference(TEXT)["input_ids"]
    assert len(token_ids) < len(TEXT.encode()), "no merge was applied"
    assert reference.decode(token_ids) == TEXT


def test_vocabulary_size_is_that_of_the_file(tmp_path):
    files = write_gpt2_files(tmp_path)
    assert tokenizer_vocab_size("GPT2BPETokenizer", files["vocab_file"]) == len(
        json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    )
    assert tokenizer_vocab_size("ByteTokenizer") is None
    assert tokenizer_vocab_size("NullTokenizer") is None


@pytest.mark.parametrize("tokenizer_type", ["NullTokenizer", "GPT2BPETokenizer"])
def test_file_that_is_not_utf_8_names_the_tokenizer_that_takes_it(tmp_path, prompts_file, tokenizer_type):
    files = write_gpt2_files(tmp_path)
    path = prompts_file(b"caf\xe9 1 2")
    with pytest.raises(ValueError, match=re.escape(str(path)) + r" is not UTF-8 text; ByteTokenizer"):
        encode_file(path, tokenizer_type=tokenizer_type, **files)


@pytest.mark.parametrize("tokenizer_type", TOKENIZER_TYPES)
def test_missing_prompts_file_is_named(tmp_path, tokenizer_type):
    path = tmp_path / "absent.txt"
    with pytest.raises(ValueError, match=re.escape(f"--prompts-file {path}: No such file")):
        encode_file(path, tokenizer_type=tokenizer_type)


@pytest.mark.parametrize("missing", ["vocab_file", "merge_file"])
def test_gpt2_tokenizer_names_the_file_it_lacks(tmp_path, prompts_file, missing):
    files = write_gpt2_files(tmp_path)
    with pytest.raises(ValueError, match="GPT2BPETokenizer needs --" + missing.replace("_", "-")):
        encode_file(prompts_file(TEXT), tokenizer_type="GPT2BPETokenizer", **{**files, missing: None})


@pytest.mark.parametrize(
    ("flag", "content"),
    [
        ("vocab_file", "not json"),
        ("vocab_file", "[]"),
        ("vocab_file", "{}"),
        ("vocab_file", '{"a": "b"}'),
        ("vocab_file", '{"a": -1}'),
        ("vocab_file", b"\xff\xfe"),
        ("merge_file", "a b c\n"),
        ("merge_file", "nowhere tobefound\n"),
        ("merge_file", b"\xff\xfe"),
    ],
)
def test_damaged_gpt2_file_is_named(tmp_path, prompts_file, flag, content):
    files = write_gpt2_files(tmp_path)
    path = tmp_path / "damaged"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=f"--{flag.replace('_', '-')} {re.escape(str(path))}"):
        encode_file(prompts_file(TEXT), tokenizer_type="GPT2BPETokenizer", **{**files, flag: str(path)})


@pytest.mark.parametrize("num_prompt_tokens", [1, 4, 5])
def test_prompt_has_exactly_the_tokens_asked_for(num_prompt_tokens):
    token_ids = [3, 1, 4, 1, 5]
    assert take_prompt(token_ids, num_prompt_tokens, path="x", vocab_size=6) == token_ids[:num_prompt_tokens]


@pytest.mark.parametrize("num_held", [0, 5])
def test_file_too_short_says_how_many_tokens_it_holds(num_held):
    with pytest.raises(PromptTooShortError, match=rf"x holds {num_held} tokens; a prompt of 6 was asked for"):
        take_prompt([1] * num_held, 6, path="x", vocab_size=6)


@pytest.mark.parametrize("token_id", [6, -1])
def test_token_outside_the_vocabulary_is_named(token_id):
    with pytest.raises(ValueError, match=rf"token {token_id} lies outside the model's vocabulary of 6"):
        take_prompt([1, 5, token_id, 2], 4, path="x", vocab_size=6)


def test_token_outside_the_vocabulary_beyond_the_prompt_is_no_matter():
    assert take_prompt([1, 5, 99], 2, path="x", vocab_size=6) == [1, 5]


@pytest.mark.parametrize(("tokenizer_type", "path"), DEFAULT_PROMPTS_FILES.items())
def test_default_file_fills_the_longest_published_prompt(tmp_path, tokenizer_type, path):
    # 2048 tokens: the context of the models of arXiv:2305.02440.
    files = write_gpt2_files(tmp_path) if tokenizer_type == "GPT2BPETokenizer" else {}
    token_ids = encode_file(path, tokenizer_type=tokenizer_type, **files)
    assert len(take_prompt(token_ids, 2048, path=path, vocab_size=512)) == 2048
    assert len(set(token_ids[:2048])) > 20
