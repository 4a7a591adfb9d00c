"""Options of a configuration: each by any of its names, of the type it must have, else as its class has it."""

import copy
import functools
import json
from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType

# Beyond no size and no base of rotary angles lies, and counts leave a float's range.
LARGEST = 2**40
# Models count layer by layer: more layers than memory has room for would end that.
MOST_LAYERS = 100_000


@functools.cache
def known_classes() -> dict[str, dict]:
    """Of each class of ``transformers``, by model type: the options that are read here, and what they are where silent.

    ``defaults`` has every option that the class knows, null where it has none; ``aliases`` other names for them.
    """
    text = (resources.files(__package__) / "class_defaults.json").read_text(encoding="utf-8")
    return json.loads(text)


class Options:
    """Typed look-ups in one configuration.

    Parameters
    ----------
    config : dict
        The parsed file.
    family : str
        Its class: options that it does not know are not read, and its defaults stand in for what the file leaves out
        (``as_in_class`` collects those by name). Of a class that is not known, all are read.
    aliases : mapping of str to str, optional
        Other names of options, theirs to ours, of a class that is not known.
    """

    def __init__(self, config: dict, family: str, aliases: Mapping[str, str] = MappingProxyType({})):
        known = known_classes().get(family)
        self.family, self.defaults = family, known and known["defaults"]
        self.aliases = known["aliases"] if known else aliases
        self.config = {
            **{self.aliases[name]: value for name, value in config.items() if name in self.aliases},
            **config,
        }
        self.as_in_class: dict[str, object] = {}
        self.unread: set[str] = set()

    def replaced(self, **given) -> "Options":
        """The same with other values, in which its class has no say."""
        other = copy.copy(self)
        other.config = {**self.config, **given}
        if self.defaults is not None:
            other.defaults = {**dict.fromkeys(given), **self.defaults}
        return other

    def find(self, *names: str):
        """Value of the first of the names that the class knows and that has one; None where none has."""
        for name in names:
            if self.defaults is not None and name not in self.defaults:
                if self.config.get(name) and self.aliases.get(name) is None:
                    self.unread.add(name)
            elif name in self.config:
                if self.config[name] is not None:
                    return self.config[name]
            elif self.defaults is not None and self.defaults[name] is not None:
                self.as_in_class[name] = self.defaults[name]
                return self.defaults[name]
        return None

    def size(self, *names: str, least: int = 1) -> int:
        """A whole number that must be there."""
        value = self.maybe(*names, least=least)
        if value is None:
            raise ValueError(f"Hugging Face configuration of family {self.family!r} lacks {names[0]!r}")
        return value

    def maybe(self, *names: str, least: int = 0) -> int | None:
        """A whole number that may be missing or null."""
        value = self.find(*names)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            quotes = ", without quotes" if isinstance(value, str) else ""
            self.refuse(names, value, f"must be a whole number{quotes}")
        most = MOST_LAYERS if "num_hidden_layers" in names else LARGEST
        if not least <= value <= most:
            self.refuse(names, value, f"must be at least {least} and at most {most if most < LARGEST else '2**40'}")
        return value

    def flag(self, *names: str) -> bool:
        """True or false; false where it is missing or null."""
        value = self.find(*names)
        if value is not None and not isinstance(value, bool):
            self.refuse(names, value, "must be true or false" + ", without quotes" * isinstance(value, str))
        return bool(value)

    def listed(self, *names: str, num: int | None = None, always: bool = False) -> list | None:
        """A list, or None; its first ``num`` entries, of which it must have as many, or more for further layers.

        ``always``: even if the class does not know it.
        """
        value = self.config.get(names[0]) if always else self.find(*names)
        if value is None:
            return None
        if not isinstance(value, list):
            self.refuse(names, value, "must be a list")
        if num is not None and len(value) < num:
            raise ValueError(
                f"{self.family} with {len(value)} {names[0]} and num_hidden_layers = {num}: must be as many"
            )
        return value if num is None else value[:num]

    def refuse(self, names, value, why):
        """Refuse a value by the name that the file has for it."""
        name = next((name for name in names if name in self.config), names[0])
        is_huge = isinstance(value, int) and abs(value) > LARGEST
        shown = f"a number of {value.bit_length()} bits" if is_huge else f"{value!r:.80}"
        raise ValueError(f"{self.family} with {name} = {shown}: {why}")
