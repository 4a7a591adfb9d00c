"""Prompts of an exact number of tokens, from a text file."""

import json
from pathlib import Path

DATA = Path(__file__).resolve().parent / "data"
TOKENIZER_TYPES = ("ByteTokenizer", "NullTokenizer", "GPT2BPETokenizer")
# The file a tokenizer reads where none is given: a text, or for NullTokenizer the token ids themselves.
DEFAULT_PROMPTS_FILES = {
    "ByteTokenizer": DATA / "prompts.txt",
    "GPT2BPETokenizer": DATA / "prompts.txt",
    "NullTokenizer": DATA / "token_ids.txt",
}


class PromptTooShortError(ValueError):
    """The prompts file holds fewer tokens than a setting needs."""


def encode_file(path: Path, *, tokenizer_type: str, vocab_file=None, merge_file=None) -> list[int]:
    """Token ids of a whole file; a ValueError names the file that is missing or does not fit the tokenizer.

    ByteTokenizer: a token a byte; NullTokenizer: token ids between white space; GPT2BPETokenizer: GPT-2's byte-pair
    encoding, by its ``vocab.json`` and ``merges.txt``.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"--prompts-file {path}: {error.strerror}") from error
    if tokenizer_type == "ByteTokenizer":
        return list(data)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"--prompts-file {path} is not UTF-8 text; ByteTokenizer takes any file") from error
    if tokenizer_type == "GPT2BPETokenizer":
        return _gpt2_tokenizer(vocab_file, merge_file).encode(text).ids
    try:
        return [int(word) for word in text.split()]
    except ValueError as error:
        raise ValueError(
            f"--prompts-file {path}: NullTokenizer reads token ids, integers between white space; {error}. "
            "For text use --tokenizer-type ByteTokenizer or GPT2BPETokenizer"
        ) from error


def tokenizer_vocab_size(tokenizer_type: str, vocab_file=None) -> int | None:
    """Number of tokens of a vocabulary file; None for the tokenizers that have none."""
    if tokenizer_type != "GPT2BPETokenizer":
        return None
    return len(_read_vocabulary(vocab_file))


def take_prompt(token_ids: list[int], num_prompt_tokens: int, *, path: Path, vocab_size: int) -> list[int]:
    """The first ``num_prompt_tokens`` tokens of a file.

    Raises
    ------
    PromptTooShortError
        The file holds fewer.
    ValueError
        A token lies outside the model's vocabulary.
    """
    if len(token_ids) < num_prompt_tokens:
        raise PromptTooShortError(
            f"--prompts-file {path} holds {len(token_ids)} tokens; a prompt of {num_prompt_tokens} was asked for: "
            "give a longer file or fewer --all-num-input-tokens"
        )
    prompt = token_ids[:num_prompt_tokens]
    outside = next((token_id for token_id in prompt if not 0 <= token_id < vocab_size), None)
    if outside is not None:
        raise ValueError(
            f"--prompts-file {path}: token {outside} lies outside the model's vocabulary of {vocab_size}; "
            "give a larger --vocab-size or another tokenizer"
        )
    return prompt


def _gpt2_tokenizer(vocab_file, merge_file):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = _read_vocabulary(vocab_file)
    if not merge_file or not Path(merge_file).is_file():
        raise ValueError(f"GPT2BPETokenizer needs --merge-file, GPT-2's merges.txt; got {merge_file!r}")
    try:
        _, merges = models.BPE.read_file(str(vocab_file), str(merge_file))
        tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    except Exception as error:  # the only class that tokenizers raises
        raise ValueError(f"--merge-file {merge_file} does not fit --vocab-file {vocab_file}: {error}") from error
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _read_vocabulary(vocab_file) -> dict[str, int]:
    if not vocab_file or not Path(vocab_file).is_file():
        raise ValueError(f"GPT2BPETokenizer needs --vocab-file, GPT-2's vocab.json; got {vocab_file!r}")
    try:
        vocabulary = json.loads(Path(vocab_file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"--vocab-file {vocab_file} is not JSON; expected GPT-2's vocab.json") from error
    if not isinstance(vocabulary, dict) or not vocabulary:
        raise ValueError(f"--vocab-file {vocab_file} holds no tokens; expected an object from token to id")
    if wrong := [token for token, token_id in vocabulary.items() if type(token_id) is not int or token_id < 0]:
        raise ValueError(
            f"--vocab-file {vocab_file}: the id of {wrong[0]!r} is {vocabulary[wrong[0]]!r}; expected >= 0"
        )
    return vocabulary
