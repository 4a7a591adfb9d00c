"""The files around the code agree with each other and with the code."""

import os
import re
import shlex
import subprocess
import tomllib

import pytest
import yaml
from makers import flags_of

from idealized_runtime.cli.main import COMMANDS, GROUPS
from idealized_runtime.measurements.published import ROOT

TARGETS = [
    "page",
    "setup",
    "figures",
    "notebooks",
    "test",
    "lint",
    "docs",
    "lab",
    "published",
    "benchmarks",
    "stacks",
    "clean",
    "help",
]
DOCUMENTS = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
]


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def project():
    return tomllib.loads(read("pyproject.toml"))["project"]


def normalized(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def pins():
    lines = [line.split("#")[0].strip() for line in read("requirements.txt").splitlines()]
    return [line for line in lines if line]


def test_every_requirement_is_pinned():
    assert [line for line in pins() if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []


def test_pins_are_of_the_packages_that_the_project_names(project):
    named = [*project["dependencies"], *(name for extra in project["optional-dependencies"].values() for name in extra)]
    assert sorted({normalized(name) for name in named}) == sorted(normalized(line.split("==")[0]) for line in pins())


def test_analysis_does_not_ask_for_torch(project):
    assert not {"torch", "megatron-core", "transformers"} & set(project["dependencies"])


def test_versions_stand_in_requirements_only(project):
    extras = project["optional-dependencies"].values()
    assert not [name for names in (project["dependencies"], *extras) for name in names if re.search(r"[<>=~]", name)]


def test_conda_environment_installs_the_same_requirements(project):
    environment = yaml.safe_load(read("environment.yml"))
    assert environment["dependencies"][-1] == {"pip": ["-r requirements.txt"]}
    assert any(name.startswith("python" + project["requires-python"]) for name in environment["dependencies"][:-1])


def test_citation_is_of_this_version_and_license(project):
    citation = yaml.safe_load(read("CITATION.cff"))
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert citation["title"] == project["name"]


def test_changelog_begins_with_this_version(project):
    assert re.search(r"^## \[([^\]]+)\]", read("CHANGELOG.md"), flags=re.MULTILINE)[1] == project["version"]


def test_license_is_apache():
    assert "Apache License" in read("LICENSE")
    assert "END OF TERMS AND CONDITIONS" in read("LICENSE")


def test_make_alone_lists_the_targets():
    listed = make(ROOT).stdout
    assert sorted(line.split()[1] for line in listed.splitlines()) == sorted(TARGETS)


def test_too_old_a_python_is_refused_with_the_remedy(tmp_path):
    old = tmp_path / "python-old"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.1 && exit 0\nexit 1\n')
    old.chmod(0o755)
    # -W: as if the requirements had just changed, so that a finished .venv does not hide the check.
    command = ["make", f"PYTHON={old}", "-W", "requirements.txt", "setup"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode != 0
    assert "must be Python 3.11 or later (Python 3.9.1); name another: make PYTHON=" in made.stderr


@pytest.fixture
def checkout(tmp_path):
    """A folder with the Makefile and a finished .venv whose python only writes down how it was called."""
    (tmp_path / "Makefile").write_text(read("Makefile"))
    for name in ("requirements.txt", "pyproject.toml"):
        (tmp_path / name).touch()
    write_script(tmp_path / ".venv/bin/python", f'echo "$@" >> {tmp_path}/calls\n')
    (tmp_path / ".venv/.installed").touch()
    (tmp_path / "logs/local").mkdir(parents=True)
    return tmp_path


def write_script(path, body):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + body)
    path.chmod(0o755)


def make(folder, *arguments):
    # This test may itself run under make, whose options are inherited.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    environment["PATH"] = f"{folder}/bin:{os.environ['PATH']}"
    return subprocess.run(
        ["make", *arguments], cwd=folder, capture_output=True, text=True, check=False, env=environment
    )


def test_figures_measures_three_models_once_and_runs_the_notebooks_each_time(checkout):
    for _ in range(2):
        assert make(checkout, "figures").returncode == 0
    calls = (checkout / "calls").read_text().splitlines()
    assert [call.split()[0] for call in calls[:3]] == ["generate_text.py"] * 3
    assert calls[3:] == ["-m idealized_runtime notebooks"] * 2
    sizes = [call.split(" --all-num-input-tokens ")[1].split(" --num-warmup")[0] for call in calls[:3]]
    for size in sizes:
        prompt_sizes, output_sizes = (part.split() for part in size.split(" --all-num-output-tokens "))
        assert len(prompt_sizes) * len(output_sizes) >= 12


def test_figures_goes_on_measuring_after_a_failure(checkout):
    write_script(checkout / ".venv/bin/python", f'echo "$@" >> {checkout}/calls; exit 130\n')
    for _ in range(2):
        assert make(checkout, "figures").returncode != 0
    assert [call.split()[0] for call in (checkout / "calls").read_text().splitlines()] == ["generate_text.py"] * 2


def test_published_is_got_by_the_python_at_hand_without_setup(checkout):
    write_script(checkout / "bin/python3", f'echo "$@" >> {checkout}/calls\n')
    assert make(checkout, "published").returncode == 0
    assert (checkout / "calls").read_text().splitlines() == ["-m idealized_runtime.measurements.fetch"]


def test_continuous_integration_runs_make_targets():
    jobs = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert commands == ["make published", "make test"]
    assert read(".ci/run").splitlines()[-1] == "make test"
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_pre_commit_runs_the_same_lint():
    (repository,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert [hook["entry"] for hook in repository["hooks"]] == ["make --silent lint"]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_of_a_document_lead_somewhere(document):
    links = re.findall(r"\]\((?!https?://|#)([^)#\s]+)|src=\"(?!https?://)([^\"]+)\"", read(document))
    folder = (ROOT / document).parent
    assert [link for pair in links for link in pair if link and not (folder / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_of_a_document_exist(document):
    text = read(document)
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", text, flags=re.MULTILINE)) <= {*TARGETS}
    scripts = set(re.findall(r"python ((?:[\w.-]+/)*[\w-]+\.py)", text))
    assert [script for script in scripts if not (ROOT / script).is_file()] == []


def test_table_of_subcommands_has_all():
    table = read("docs/command.md").split("\n\n")[2]
    heads = set(re.findall(r"^\| `([a-z]+)", table, flags=re.MULTILINE))
    assert heads == {name.split()[0] for name in COMMANDS}
    assert set(re.findall(rf"`(?:{'|'.join(GROUPS)}) ([a-z, -]+)`", table)) == {
        ", ".join(name.split()[1] for name in COMMANDS if name.startswith(f"{group} ")) for group in GROUPS
    }


def subcommand_lines(document):
    """Each line of a document that runs a subcommand, as words after the program's name."""
    program = r"^(?:\$ )?(?:\.venv/bin/)?(?:idealized-runtime|LIFETIME) .*"
    for line in re.findall(program, read(document).replace("\\\n", " "), flags=re.MULTILINE):
        words = shlex.split(line.replace("LIFETIME", "idealized-runtime lifetime"), comments=True)
        yield words[next(number for number, word in enumerate(words) if word.endswith("idealized-runtime")) + 1 :]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_subcommands_of_a_document_exist_and_have_those_flags(document):
    for words in subcommand_lines(document):
        name = next(name for name in (" ".join(words[:2]), words[0]) if name in COMMANDS)
        known = flags_of(name, *(["time"] if name == "campaign" else []))
        assert {word for word in words if word.startswith("--")} <= known, words


def test_readme_is_short_and_guides_have_commands():
    assert len(read("README.md").splitlines()) <= 150
    assert sum(len(list(subcommand_lines(document))) for document in DOCUMENTS) >= 30


def test_flags_of_the_guide_are_flags_of_the_driver():
    from megatron_lm.arguments import build_parser

    known = {flag for action in build_parser()._actions for flag in action.option_strings}
    known |= {"--nproc-per-node", "--nnodes", "--max-restarts"}  # torchrun's
    known |= {"--accept"}  # of what reads the log
    guide = read("docs/guides/time_a_model.md")
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", guide)) <= known


def test_gallery_has_a_row_of_every_notebook():
    rows = re.findall(r"\(\.\./notebooks/(\w+)\.ipynb\) \| `RUN", read("docs/gallery.md"))
    assert sorted(rows) == sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
