"""Every command of the README and of docs/ that stands there with its answer is run, and the two are compared."""

import re
import shlex

import pytest

from idealized_runtime.cli.main import main
from idealized_runtime.measurements.published import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NUMBER = re.compile(r"[-+]?\d+\.?\d*(?:e[-+]?\d+)?")
# Of numbers that are fitted or simulated: other processors round otherwise, and simulated days hang on it.
TOLERANCE = 0.03


def commands(page):
    """Each command of a page with the lines of its answer that are shown."""
    for block in re.findall(r"```console\n\$ idealized-runtime (.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        command, answer = re.split(r"(?<!\\)\n", block, maxsplit=1)
        yield shlex.split(command.replace("\\\n", " ")), answer.splitlines()


def parts(line):
    """The words of a line, and its numbers."""
    return " ".join(NUMBER.sub("", line).split()), [float(number) for number in NUMBER.findall(line)]


@pytest.mark.parametrize(
    ("words", "expected"),
    [pytest.param(*it, id=f"{page.stem}: {' '.join(it[0])[:60]}") for page in PAGES for it in commands(page)],
)
def test_command_gives_the_answer_that_the_page_shows(words, expected, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(words) == 0
    given = [parts(line) for line in capsys.readouterr().out.splitlines()]
    for line in expected:
        said, numbers = parts(line)
        assert any(said == other and numbers == pytest.approx(others, rel=TOLERANCE) for other, others in given), line


def test_questions_have_answers():
    questions = re.findall(r"^## ", (ROOT / "docs" / "questions.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(questions) >= 12
    assert len(list(commands(ROOT / "docs" / "questions.md"))) >= len(questions)
    assert len(list(commands(ROOT / "README.md"))) >= 5
