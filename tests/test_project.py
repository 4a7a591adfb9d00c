"""The files around the code agree with each other and with the code."""

import os
import re
import subprocess
import tomllib

import pytest
import yaml

from idealized_runtime.published import ROOT

TARGETS = ["setup", "figures", "notebooks", "test", "lint", "lab", "published", "benchmarks", "clean", "help"]


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
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
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


def test_continuous_integration_runs_make_targets():
    jobs = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert commands == ["make published", "make test"]
    assert read(".ci/run").splitlines()[-1] == "make test"
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_pre_commit_runs_the_same_lint():
    (repository,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert [hook["entry"] for hook in repository["hooks"]] == ["make --silent lint"]


@pytest.mark.parametrize("document", ["README.md", "CHANGELOG.md"])
def test_links_of_a_document_lead_somewhere(document):
    links = re.findall(r"\]\((?!https?://|#)([^)#\s]+)|src=\"(?!https?://)([^\"]+)\"", read(document))
    assert [link for pair in links for link in pair if link and not (ROOT / link).exists()] == []


def test_commands_of_the_readme_exist():
    readme = read("README.md")
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", readme, flags=re.MULTILINE)) <= {*TARGETS}
    scripts = set(re.findall(r"python ((?:[\w.-]+/)*[\w-]+\.py)", readme))
    assert [script for script in scripts if not (ROOT / script).is_file()] == []


def test_flags_of_the_readme_are_flags_of_the_driver():
    from megatron_lm.arguments import _build_parser

    known = {flag for action in _build_parser()._actions for flag in action.option_strings}
    table = read("README.md").split("## Time a model")[1].split("\n## ")[0]
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", table)) <= known
