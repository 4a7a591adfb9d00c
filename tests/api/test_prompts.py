"""Prompts of exactly so many tokens, by a tokenizer or by what a server reports."""

import asyncio
import re

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from idealized_runtime.api.prompts import WORDS, CalibratedPrompts, PromptSizeError, TokenizerPrompts
from megatron_lm.prompts import DEFAULT_PROMPTS_FILES

SIZES = [2, 3, 16, 127, 1000]


def byte_pairs():
    """GPT's kind, trained on a page of text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train([str(DEFAULT_PROMPTS_FILES["ByteTokenizer"])], trainer)
    return tokenizer


def byte_pairs_with_begin():
    tokenizer = byte_pairs()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return tokenizer


def single_bytes():
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return tokenizer


def whole_words():
    words = ["[UNK]", "alpha", "beta", "gamma"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


TOKENIZERS = [byte_pairs, byte_pairs_with_begin, single_bytes, whole_words]


@pytest.fixture
def save(tmp_path):
    def save(tokenizer):
        path = tmp_path / "tokenizer.json"
        tokenizer.save(str(path))
        return path

    return save


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("make", TOKENIZERS)
def test_prompt_has_exactly_as_many_tokens_by_any_tokenizer(make, save):
    tokenizer = make()
    prompts = TokenizerPrompts(save(tokenizer))
    for size in SIZES:
        for seed in range(5):
            assert len(tokenizer.encode(prompts.make(size, rng(seed))).ids) == size


def test_truncation_and_padding_of_the_file_do_not_count(save):
    tokenizer = byte_pairs()
    tokenizer.enable_truncation(10)
    tokenizer.enable_padding(length=50)
    prompts = TokenizerPrompts(save(tokenizer))
    assert len(byte_pairs().encode(prompts.make(30, rng())).ids) == 30


def test_prompts_differ_from_their_first_tokens_on(save):
    tokenizer = byte_pairs()
    prompts = TokenizerPrompts(save(tokenizer))
    firsts = {tuple(tokenizer.encode(prompts.make(64, rng(seed))).ids[:4]) for seed in range(100)}
    assert len(firsts) == 100


def test_prompt_is_that_of_its_seed(save):
    prompts = TokenizerPrompts(save(byte_pairs()))
    assert prompts.make(64, rng(1)) == prompts.make(64, rng(1)) != prompts.make(64, rng(2))


def test_size_below_the_smallest_is_refused(save):
    prompts = TokenizerPrompts(save(byte_pairs_with_begin()))
    with pytest.raises(PromptSizeError, match=r"no prompt of 1 tokens was found with .*; the smallest has 2"):
        prompts.make(1, rng())


def test_what_the_server_adds_is_learnt_from_its_usage(save):
    tokenizer = byte_pairs()
    prompts = TokenizerPrompts(save(tokenizer), adds_special_tokens=False)

    async def count(text):
        return len(tokenizer.encode(text).ids) + 11

    asyncio.run(prompts.calibrate(count, [50]))
    assert prompts.num_shared_tokens == 11
    assert len(tokenizer.encode(prompts.make(50, rng())).ids) == 39


def test_without_usage_the_file_alone_counts(save):
    prompts = TokenizerPrompts(save(byte_pairs_with_begin()))

    async def count(_text):
        return None

    asyncio.run(prompts.calibrate(count, [50]))
    assert prompts.num_shared_tokens == 1
    assert prompts.count(prompts.make(50, rng())) == 50


@pytest.mark.parametrize(("contents", "message"), [(None, "No such file"), ("{}", "not a tokenizer.json")])
def test_file_that_is_no_tokenizer_is_refused(tmp_path, contents, message):
    path = tmp_path / "tokenizer.json"
    if contents is not None:
        path.write_text(contents)
    with pytest.raises(ValueError, match=re.escape(f"--tokenizer {path}: ") + message):
        TokenizerPrompts(path)


class Counter:
    """A server that counts tokens, and how often it was asked."""

    def __init__(self, count):
        self._count = count
        self.num_asked = 0

    async def __call__(self, text):
        self.num_asked += 1
        return self._count(text)


COUNTERS = {
    "a token a word": lambda text: len(re.findall(r"\w+|[^\w\s]", text)),
    "a chat template": lambda text: len(re.findall(r"\w+|[^\w\s]", text)) + 23,
    "words and spaces": lambda text: len(re.findall(r"\w+|[^\w\s]|\s+", text)),
    "characters": len,
    "two tokens a word": lambda text: 2 * len(re.findall(r"\w+", text)) + len(re.findall(r"[^\w\s]", text)) + 1,
}


@pytest.mark.parametrize("count", COUNTERS.values(), ids=COUNTERS)
def test_prompt_has_exactly_as_many_tokens_by_the_server(count):
    counter, prompts = Counter(count), CalibratedPrompts()
    sizes = [size + count(WORDS[0]) for size in (0, 1, 15, 126, 999)]
    if count is COUNTERS["two tokens a word"]:
        # A word and a filler are the least that follows one word.
        sizes.remove(1 + count(WORDS[0]))
        sizes.append(1 + count(WORDS[0]))
    asyncio.run(prompts.calibrate(counter, sizes))
    for size in sizes:
        for seed in range(5):
            assert count(prompts.make(size, rng(seed))) == size
    assert counter.num_asked <= 2 + len(sizes), "one question a size at most"


def test_calibration_asks_twice_where_a_word_is_a_token():
    counter = Counter(COUNTERS["a token a word"])
    asyncio.run(CalibratedPrompts().calibrate(counter, [1, 512, 1024]))
    assert counter.num_asked == 2


def test_other_filler_is_tried_where_marks_are_merged():
    # Two marks in a row are one token.
    def count(text):
        return 3 * len(re.findall(r"\w+", text)) + len(re.findall(r"[^\w\s]{1,2}", text))

    prompts = CalibratedPrompts()
    asyncio.run(prompts.calibrate(Counter(count), [8]))
    assert count(prompts.make(8, rng())) == 8


def test_tokens_that_every_prompt_shares_are_told():
    prompts = CalibratedPrompts()
    asyncio.run(prompts.calibrate(Counter(COUNTERS["a chat template"]), [100]))
    assert prompts.num_shared_tokens == 23


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (lambda _: None, "the server reports no usage, by which prompts could be counted: give --tokenizer"),
        (lambda text: text.count("a"), r"the server counts -?\d+ tokens for 32 words .* give --tokenizer"),
        (lambda _: 5, "the server counts 0 tokens for 32 words"),
        (lambda text: 30 + len(text.split()), "no prompt of 16 tokens: the server counts 31 for a single word"),
        (lambda text: 6 * len(text.split()), "no prompt of 16 tokens was found by the server's counts"),
    ],
)
def test_server_that_cannot_be_understood_is_refused(count, message):
    with pytest.raises(PromptSizeError, match=message):
        asyncio.run(CalibratedPrompts().calibrate(Counter(count), [16]))


def test_words_are_alike_in_length_and_different():
    assert len(set(WORDS)) == len(WORDS)
    assert {len(word) for word in WORDS} == {4}
