# `make` lists the targets. All need Python 3.11 or later, make and a C compiler; `published` also git.
PYTHON ?= python3

BIN := .venv/bin
INSTALLED := .venv/.installed
# HELM's parameter file and its estimate function: what tests and benchmarks compare with. Not a dependency.
HELM := .helm/.crfm-helm-0.5.16
# Servers that tests profile, each in an environment of its own. Not dependencies.
MLX := .servers/mlx/.mlx-lm-0.32.2
GUIDELLM := .servers/guidellm/.guidellm-0.8.1
MEASURED := logs/local/.measured
NOTEBOOKS := $(BIN)/python -m idealized_runtime notebooks

# What `make figures` times on this machine: three depths and widths, of 12 settings each as many trials as it takes to
# know their runtimes to 5 %; on a machine that has other things to do, no longer than 30 s each.
ARCHITECTURES := distilgpt2 smollm2-135m gpt2-small
PROMPT_SIZES := 1 32 128 512
OUTPUT_SIZES := 1 8 24
TRIALS := --target-error 0.05 --max-seconds 30

# Where the environment forbids it, each of some hundred processes would compile torch anew, which takes 7 s.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup figures notebooks test lint docs page lab published stacks benchmarks clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED)  ## .venv with everything installed, at the versions of requirements.txt

figures: $(MEASURED)  ## time three models on this machine, fit them, execute every notebook (about 8 minutes)
	@$(NOTEBOOKS)

notebooks: $(INSTALLED)  ## execute the notebooks whose data, code or parameters changed; measure nothing
	@$(NOTEBOOKS)

test: lint docs $(HELM) $(MLX) $(GUIDELLM)  ## lint, the site, unit and driver tests, committed notebooks compared cell by cell
	@$(BIN)/python -m pytest -n 2 --dist worksteal
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --nbval --nbval-current-env notebooks page

lint: $(INSTALLED)  ## ruff: rules and format
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet

docs: $(INSTALLED)  ## the site, in build/docs/index.html: its links lead somewhere, it loads nothing from outside
	@$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --write-all --jobs auto --conf-dir docs . build/docs

page: $(INSTALLED)  ## the planner in a browser, on this machine alone
	@$(BIN)/python -m idealized_runtime page

lab: $(INSTALLED)  ## JupyterLab in notebooks/
	@$(BIN)/jupyter lab --notebook-dir notebooks

published:  ## get the published measurements of others that are not in published/ yet
	@$(PYTHON) -m idealized_runtime.measurements.fetch

stacks: $(INSTALLED)  ## fit anew the coefficients that come with the package, of the logs a100, cpu and v100 and of published servers
	@$(BIN)/python -c 'from idealized_runtime.prediction.predictor import ship_stack; [*map(ship_stack, ("a100", "cpu", "v100"))]'
	@$(BIN)/python -c 'from idealized_runtime.serving.known_stacks import ship_known_stacks; ship_known_stacks()'

benchmarks: $(INSTALLED) $(HELM) $(GUIDELLM)  ## our ratios against named peers; wants a quiet machine
	@for benchmark in benchmarks/*.py; do echo "== $$benchmark"; $(BIN)/python "$$benchmark" || exit 1; done

clean:  ## remove what setup and the runs made; measurements and published data stay
	rm -rf .venv .helm .servers .executed .pytest_cache .ruff_cache build *.egg-info

$(INSTALLED): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: $(PYTHON) must be Python 3.11 or later ($$($(PYTHON) --version 2>&1 || echo not found));" \
	    "name another: make PYTHON=python3.13 setup" >&2; exit 1; }
	@echo "Installing the packages of requirements.txt into .venv (1 to 3 minutes) ..."
	@$(PYTHON) -m venv .venv
	@# Compiling all of torch takes longer than compiling, at first use, what is imported.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

$(HELM): | $(INSTALLED)
	@echo "Installing crfm-helm, without its dependencies, into .helm ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .helm crfm-helm==0.5.16 \
	  && touch $@ || echo "make: crfm-helm could not be installed; what compares with it is skipped" >&2

# What .venv has is seen from these environments, and so not installed again: torch alone takes minutes.
$(MLX): PACKAGES := mlx[cpu]==0.32.4 mlx-lm==0.32.2
$(GUIDELLM): PACKAGES := guidellm==0.8.1
$(MLX) $(GUIDELLM): | $(INSTALLED)
	@echo "Installing $(PACKAGES) into $(@D) ..."
	@rm -rf $(@D)
	@$(BIN)/python -m venv --without-pip $(@D)
	@for packages in $(@D)/lib/python*/site-packages; do \
	  $(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $$packages/venv.pth; done
	@$(BIN)/python -m pip --python $(@D)/bin/python install --quiet --disable-pip-version-check --no-compile \
	  $(foreach package,$(PACKAGES),'$(package)') \
	  && touch $@ || echo "make: $(PACKAGES) could not be installed; tests with it are skipped" >&2

# The logs say what they hold: an interrupted sweep goes on, and a log of other trials or versions is refused.
$(MEASURED): Makefile | $(INSTALLED)
	@for name in $(ARCHITECTURES); do \
	  $(BIN)/python generate_text.py --architecture $$name --all-num-input-tokens $(PROMPT_SIZES) \
	    --all-num-output-tokens $(OUTPUT_SIZES) $(TRIALS) --log logs/local/$$name.jsonl || exit 1; \
	done
	@touch $@
