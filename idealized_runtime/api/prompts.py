"""Synthetic prompts of exactly so many tokens, of random words: no two have a beginning that a cache could answer.

How many tokens a text has says the model's ``tokenizer.json``, or the server itself: the usage that it reports for a
few texts tells how it counts. Either way the usage of every trial is held against the prompt's size afterwards.
"""

import re
from bisect import bisect_right
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np

# Four letters each, and one token each in the large vocabularies, with a space before them and without: a text of n
# of them has a known number of tokens.
_WORD_LIST = """
    able also area army away baby back ball band bank base bill blue body book case cell city club cold cost data
    date deal door down east even face fact farm fast film fire fish food foot form four free full game girl goal
    gold good hair half hand hard head help here high hold home hope hour idea jack july june just kind king lake
    land last late lead left life like line list live long look lord loss love main many mark mass mind miss moon
    more most move much name near need news next nine note once only open over page pain park part past path plan
    play port post rain rate read real rest rich ring rise risk road rock role room rule safe sale same seat sell
    send shop show side sign site size skin snow soft song star step stop take talk task team tell term test text
    than them then time town tree true turn type unit upon view vote wait walk wall want warm wash wave week well
    west wide wife wild will wind wing wish wood word work year zone
"""
WORDS = tuple(_WORD_LIST.split())
# One token each wherever they stand in a row, since no two alike follow each other.
_FILLERS = ";!:?,.|~" * 2
_NUM_PROBE_WORDS = 32
_MAX_FILLERS = 12
_MAX_DRAWS = 60
_MAX_VOCABULARY_WORDS = 5000
_TAILS = (" a", "a", ".", ";", " 1", "\n", "!", "?", "e", "t", "x")

Count = Callable[[str], Awaitable[int | None]]


class PromptSizeError(ValueError):
    """No prompt of the size that was asked for can be made."""


class TokenizerPrompts:
    """Prompts counted by a ``tokenizer.json``.

    Parameters
    ----------
    path : path-like
        The model's ``tokenizer.json``.
    adds_special_tokens : bool
        Whether the server puts them around the text as the file says: so for completions; a chat template has its own.

    Raises
    ------
    ValueError
        The file is no tokenizer.
    """

    def __init__(self, path, *, adds_special_tokens: bool = True):
        self._path = Path(path)
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_str(self._path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ValueError(f"--tokenizer {path}: {error.strerror}") from error
        except Exception as error:  # the only class that tokenizers raises
            raise ValueError(f"--tokenizer {path}: not a tokenizer.json: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._adds_special_tokens = adds_special_tokens
        self._words = _vocabulary_words(self._tokenizer)
        # What the server counts beyond the file's count, such as a chat template.
        self.num_extra_tokens = 0

    @property
    def num_shared_tokens(self) -> int:
        """Tokens that all prompts begin or end with, and that a server may therefore keep."""
        return self.num_extra_tokens + self.count("")

    def count(self, text: str) -> int:
        """Tokens of a text by the file."""
        return len(self._tokenizer.encode(text, add_special_tokens=self._adds_special_tokens).ids)

    async def calibrate(self, count: Count, sizes):
        """Learn from one answer what the server adds to every text; needs no ``sizes``."""
        text = _join(np.random.default_rng(0), self._words, 8)
        reported = await count(text)
        if reported is not None:
            self.num_extra_tokens = reported - self.count(text)

    def make(self, num_prompt_tokens: int, rng: np.random.Generator) -> str:
        """A text of exactly so many tokens, extra ones included.

        Raises
        ------
        PromptSizeError
            There is none, because every prompt has more tokens than that.
        """
        wanted = num_prompt_tokens - self.num_extra_tokens
        for draw in range(_MAX_DRAWS):
            # No word has less than one token.
            words = rng.choice(self._words, max(wanted, 1)).tolist()
            lengths = range(1, len(words) + 1)
            words = " ".join(words[: bisect_right(lengths, wanted, key=lambda n: self.count(" ".join(words[:n])))])
            # A small prompt whose first word does not fit: others may, and single letters are all alike.
            if not words and draw < _MAX_DRAWS // 2:
                continue
            text = self._extend(words, wanted)
            if text and self.count(text) == wanted:
                return text
        least = self.num_extra_tokens + self.count("a")
        raise PromptSizeError(
            f"no prompt of {num_prompt_tokens} tokens was found with {self._path}; the smallest has {least}"
        )

    def _extend(self, text, wanted) -> str:
        """The same text with single characters after it, until it has so many tokens."""
        missing = wanted - self.count(text)
        while missing > 0:
            longer = (text + tail if text else tail.strip() for tail in _TAILS)
            text = next((t for t in longer if t and missing > wanted - self.count(t) >= 0), None)
            if text is None:
                return ""
            missing = wanted - self.count(text)
        return text


class CalibratedPrompts:
    """Prompts counted by the server: its usage tells tokens a word, tokens around the text, and what fills the rest."""

    def __init__(self):
        self._num_tokens_a_word = 1
        self.num_shared_tokens = 0
        self._shapes: dict[int, tuple[int, int]] = {}

    async def calibrate(self, count: Count, sizes):
        """Learn how the server counts, and find a shape for every size.

        Parameters
        ----------
        count : coroutine function
            Tokens that the server reports for a text; None where it reports none.
        sizes : iterable of int

        Raises
        ------
        PromptSizeError
            The server reports no usage, counts words unevenly, or a size cannot be met.
        """
        rng = np.random.default_rng(0)
        short, long = [await count(_join(rng, WORDS, n)) for n in (1, 1 + _NUM_PROBE_WORDS)]
        if short is None or long is None:
            raise PromptSizeError("the server reports no usage, by which prompts could be counted: give --tokenizer")
        self._num_tokens_a_word, rest = divmod(long - short, _NUM_PROBE_WORDS)
        if rest or self._num_tokens_a_word < 1:
            raise PromptSizeError(
                f"the server counts {long - short} tokens for {_NUM_PROBE_WORDS} words of four letters: its tokens "
                "cannot be told from outside; give --tokenizer, the model's tokenizer.json"
            )
        self.num_shared_tokens = short - self._num_tokens_a_word
        for size in sizes:
            self._shapes[size] = await self._find_shape(count, size, short)

    def make(self, num_prompt_tokens: int, rng: np.random.Generator) -> str:
        """A text that the server counts as so many tokens; calibrate for the size first."""
        num_words, num_fillers = self._shapes[num_prompt_tokens]
        return _join(rng, WORDS, num_words) + _FILLERS[:num_fillers]

    async def _find_shape(self, count, size, smallest) -> tuple[int, int]:
        """Number of words and of fillers behind them."""
        if size < smallest:
            raise PromptSizeError(f"no prompt of {size} tokens: the server counts {smallest} for a single word")
        num_words, missing = divmod(size - self.num_shared_tokens, self._num_tokens_a_word)
        if not missing:
            return num_words, 0
        text = _join(np.random.default_rng(size), WORDS, num_words)
        for num_fillers in (missing, *(n for n in range(1, _MAX_FILLERS) if n != missing)):
            if await count(text + _FILLERS[:num_fillers]) == size:
                return num_words, num_fillers
        raise PromptSizeError(f"no prompt of {size} tokens was found by the server's counts: give --tokenizer")


def _join(rng, words, num_words) -> str:
    return " ".join(rng.choice(words, num_words).tolist())


def _vocabulary_words(tokenizer) -> list[str]:
    """Plain words of the vocabulary, so that different words are different tokens; common ones where it has none."""
    # Byte-level vocabularies write a space before a word as Ġ, sentencepiece as ▁.
    stripped = (token.lstrip("Ġ▁ ") for token in tokenizer.get_vocab())
    words = sorted({token for token in stripped if re.fullmatch(r"[A-Za-z]{2,12}", token)})
    if len(words) < 2:
        return list(WORDS)
    step = max(1, len(words) // _MAX_VOCABULARY_WORDS)
    return words[::step]
