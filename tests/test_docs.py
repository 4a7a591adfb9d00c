"""Commands and cells that stand with their answers in the README and in docs/ are run, and the two are compared."""

import inspect
import io
import re
import shlex
from contextlib import redirect_stderr, redirect_stdout
from doctest import (
    NORMALIZE_WHITESPACE,
    DebugRunner,
    DocTestFailure,
    DocTestFinder,
    DocTestParser,
    UnexpectedException,
)
from functools import cache, cached_property
from importlib import import_module

import pytest

import idealized_runtime
from idealized_runtime.cli.main import main
from idealized_runtime.measurements.published import ROOT, published_data
from idealized_runtime.notebooks.places import RUNS_FILE
from idealized_runtime.notebooks.runs import read_runs
from idealized_runtime.reproductions.paper import reproduce, to_text

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
QUESTIONS = ROOT / "docs" / "questions.md"
# Of others' measurements, the part that the answer of a block is read from.
PUBLISHED = {
    "AzurePublicDataset": re.compile("AzurePublicDataset/"),
    "helm-efficiency": re.compile("from the logs of other models.* Megatron-LM 2022"),
}
NUMBER = re.compile(r"[-+]?\d+\.?\d*(?:e[-+]?\d+)?")
# Of numbers that are fitted or simulated: other processors round otherwise, and simulated days hang on it.
TOLERANCE = 0.03


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def session(block):
    """Each command of a block with the lines of its answer that are shown."""
    for part in re.split(r"^\$ idealized-runtime ", block, flags=re.MULTILINE)[1:]:
        command, answer = re.split(r"(?<!\\)\n", part, maxsplit=1)
        yield shlex.split(command.replace("\\\n", " ")), answer.splitlines()


def parts(line):
    """The words of a line, and its numbers."""
    return " ".join(NUMBER.sub("", line).split()), [float(number) for number in NUMBER.findall(line)]


def check_answer(expected, given):
    given = [parts(line) for line in given.splitlines()]
    for line in expected:
        said, numbers = parts(line)
        assert any(said == other and numbers == pytest.approx(others, rel=TOLERANCE) for other, others in given), line


def cases(language):
    return [
        pytest.param(block, id=f"{page.stem}: {block.splitlines()[0][:70]}")
        for page in PAGES
        for block in blocks(page, language)
    ]


@cache
def answer(words):
    """Exit code of a command and what it prints; several pages ask the same."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = main([*words])
    return code, out.getvalue() + err.getvalue()


@pytest.mark.parametrize("block", cases("console"))
def test_commands_give_the_answers_that_the_page_shows(block, monkeypatch):
    monkeypatch.chdir(ROOT)
    for part, pattern in PUBLISHED.items():
        if pattern.search(block):
            published_data(part)
    for words, expected in session(block):
        code, printed = answer(tuple(words))
        assert code == 0, printed
        check_answer(expected, printed)


@pytest.mark.parametrize("block", cases("pycon"))
def test_cells_give_the_answers_that_the_page_shows(block, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    names = {}
    for example in DocTestParser().get_examples(block):
        exec(compile(example.source, "<cell>", "single"), names)
        check_answer(example.want.splitlines(), capsys.readouterr().out)


def test_every_question_has_its_answer():
    sections = QUESTIONS.read_text(encoding="utf-8").split("\n## ")[1:]
    assert len(sections) >= 32
    assert [section.splitlines()[0] for section in sections if not re.search("```(console|pycon)", section)] == []
    assert len(blocks(ROOT / "README.md", "console")) >= 5


def test_numbers_of_the_paper_are_those_that_the_guide_expects():
    published_data("helm-efficiency")
    rows = re.findall(r"^\| (.*) \|$", (ROOT / "docs/guides/reproduce.md").read_text(encoding="utf-8"), re.MULTILINE)[
        2:
    ]
    assert len(rows) >= 15
    report = to_text(reproduce()).set_index(["section", "claim"])
    for place, claim, printed, expected, tolerance, command, _ in (row.split(" | ") for row in rows):
        found = report.loc[(place, claim)]
        (said, numbers), (other, others) = parts(expected), parts(found["recomputed"])
        allowed = 0.0 if tolerance == "none" else float(tolerance.removesuffix(" %")) / 100
        assert (printed, said) == (found["printed"], other), claim
        assert numbers == pytest.approx(others, rel=allowed), claim
        assert command.removeprefix("`RUN ").removesuffix("`") in {run.name for run in read_runs(RUNS_FILE)}


def modules_with_examples():
    paths = (ROOT / "idealized_runtime").rglob("*.py")
    names = (path.relative_to(ROOT).with_suffix("") for path in paths if ">>> " in path.read_text(encoding="utf-8"))
    return sorted(".".join(name.parts).removesuffix(".__init__") for name in names)


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_of_docstrings_give_what_they_say(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    module = import_module(name)
    for example in DocTestFinder(exclude_empty=True).find(module, name):
        try:
            DebugRunner(optionflags=NORMALIZE_WHITESPACE).run(example)
        except UnexpectedException as error:
            # A file of published data that is absent, say, which skips the test.
            raise error.exc_info[1] from None
        except DocTestFailure as failure:
            pytest.fail(f"{failure.test.name}: {failure.example.source}{failure.got}not {failure.example.want}")


def test_every_name_at_the_top_has_an_example():
    assert [
        name for name in idealized_runtime.__all__ if ">>> " not in (getattr(idealized_runtime, name).__doc__)
    ] == []


def public_members():
    """What stands in the modules that docs/api lists, members of classes included, as (name, thing)."""
    pages = sorted((ROOT / "docs" / "api").glob("*.md"))
    for name in re.findall(r"automodule:: ([\w.]+)", "\n".join(page.read_text(encoding="utf-8") for page in pages)):
        module = import_module(name)
        for member in getattr(module, "__all__", vars(module)):
            thing = getattr(module, member)
            if member.startswith("_") or not f"{getattr(thing, '__module__', '')}.".startswith(f"{name}."):
                continue
            yield f"{name}: {member}", thing
            for inner, own in vars(thing).items() if inspect.isclass(thing) else ():
                if not inner.startswith("_"):
                    yield f"{name}: {member}.{inner}", own


def public_functions():
    """Functions and methods among them, as (name, function)."""
    for name, thing in public_members():
        function = inspect.unwrap(getattr(thing, "__func__", thing))
        if inspect.isfunction(function):
            yield name, function


def test_public_functions_say_the_types_of_what_they_take_and_give():
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    untyped = []
    for name, function in public_functions():
        signature = inspect.signature(function)
        named = [it for it in signature.parameters.values() if it.kind not in kinds and it.name not in ("self", "cls")]
        annotations = [*(it.annotation for it in named), signature.return_annotation]
        if any(annotation is inspect.Signature.empty for annotation in annotations):
            untyped.append(name)
    assert untyped == []


def test_first_line_of_a_property_has_no_colon():
    # Sphinx takes what stands before a colon there for the type.
    properties = [(name, thing) for name, thing in public_members() if isinstance(thing, property | cached_property)]
    assert len(properties) > 50
    assert [
        name for name, it in properties if it.__doc__ and ": " in re.sub("``.*?``", "", it.__doc__.split("\n")[0])
    ] == []


def test_no_line_of_a_page_is_lost_as_a_comment():
    lines = [f"{page.name}: {line}" for page in PAGES for line in page.read_text(encoding="utf-8").splitlines()]
    assert [line for line in lines if line.partition(": ")[2].lstrip().startswith("%")] == []
