"""The wheel is all that an analyst installs: it answers without the checkout and without torch."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata

import pytest

from idealized_runtime.measurements.published import ROOT

PACKAGES = ("idealized_runtime/", "megatron_lm/")
# Runs the command where only what analysis asks for can be imported, as in an environment that has nothing else.
COMMAND = """
import sys
from importlib.abc import MetaPathFinder

wheel, refused, *words = sys.argv[1], set(sys.argv[2].split(",")), *sys.argv[3:]
sys.path.insert(0, wheel)

class Others(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Others())
import idealized_runtime
assert idealized_runtime.__file__.startswith(wheel), idealized_runtime.__file__
from idealized_runtime.cli.main import main
sys.exit(main(words))
"""


def other_modules():
    """Top-level modules of what ``pip install .`` does not install."""
    waiting = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    distributions = set()
    while waiting:
        name = re.match(r"[\w.-]+", waiting.pop())[0].lower().replace("_", "-")
        if name not in distributions:
            distributions.add(name)
            waiting += [line for line in metadata.requires(name) or [] if "extra ==" not in line and is_here(line)]
    modules = metadata.packages_distributions()
    ours = {top for top, names in modules.items() if distributions & {it.lower().replace("_", "-") for it in names}}
    return modules.keys() - ours - {"idealized_runtime", "megatron_lm"}


def is_here(requirement):
    """Whether a requirement's package is installed; those of other systems and of older Pythons are not."""
    try:
        return bool(metadata.distribution(re.match(r"[\w.-]+", requirement)[0]))
    except metadata.PackageNotFoundError:
        return False


def files_at_hand():
    """Files of the checkout as they are now, committed or not, by their paths in it."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The folder that the wheel was unpacked to."""
    folder = tmp_path_factory.mktemp("wheel")
    checkout = folder / "checkout"
    for name in files_at_hand():
        # All that building reads; logs, figures and notebooks are of no package.
        if name.count("/") == 0 or name.startswith(PACKAGES):
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, checkout / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, checkout]
    built = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    zipfile.ZipFile(path).extractall(folder / "installed")
    return folder / "installed"


def run(wheel, *words, code=0):
    command = [sys.executable, "-c", COMMAND, str(wheel), ",".join(other_modules()), *words]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=wheel)
    assert ran.returncode == code, ran.stderr
    return ran.stdout + ran.stderr


def test_torch_is_not_installed_for_analysis():
    others = other_modules()
    assert {"torch", "megatron", "transformers", "httpx"} <= others
    assert not {"numpy", "pandas", "scipy", "statsmodels"} & others


def test_wheel_predicts_without_a_checkout_and_without_torch(wheel):
    sizes = ["--num-prompt-tokens", "777", "--num-output-tokens", "123"]
    assert "time per output token, s: 0.0242" in run(
        wheel, "predict", "--logs", "a100", "--model", "llama-3.1-8b", *sizes
    )


def test_wheel_prices_a_table(wheel):
    queries = str(ROOT / "docs" / "queries.csv")
    assert "6 queries to llama-3.1-8b" in run(wheel, "price", queries, "--logs", "a100", "--model", "llama-3.1-8b")


def test_page_of_a_wheel_without_its_extra_says_what_to_install(wheel):
    said = run(wheel, "page", "--no-browser", code=1)
    assert "comes with the extra page: pip install 'idealized-runtime[page]'" in said
    assert len(said.splitlines()) == 1


def test_wheel_has_every_data_file_and_says_that_it_is_typed(wheel):
    files = [name for name in files_at_hand() if name.startswith(PACKAGES)]
    assert [name for name in files if not (wheel / name).is_file()] == []
    assert "idealized_runtime/py.typed" in files
