# Everything is installed into $(VENV) and nowhere else. `make` alone lists the targets.

PYTHON ?= python3
VENV ?= .venv
# Address of an extra package index for torch. On Linux x86-64 the torch of the default index is the
# CUDA build, some gigabytes; the installation page of PyTorch names the index of the CPU build.
TORCH_INDEX_URL ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=
# The scripts in benchmarks/ that `make bench` runs, in this order.
BENCHMARKS ?= clustering online large_scene dense_vs_original invariance kill_and_resume faults growth \
	reading alternatives workers gpu onnx_rate fewlabel
# A part of the few-label table: all of it takes hours.
FEWLABEL_ARGS ?= --per-class 10 --draws 2 --no-record

# Blanks part the names in a rule: such a path would be made here and sought elsewhere.
ifneq ($(words $(VENV)),1)
$(error hsiclust: VENV is '$(VENV)': make takes no path with blanks: name another)
endif

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	$(if $(TORCH_INDEX_URL),--extra-index-url "$(TORCH_INDEX_URL)")

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench clean
.DELETE_ON_ERROR:
.NOTPARALLEL:

help: ## list the targets
	@echo 'usage: make TARGET [PYTHON=python3.12] [VENV=.venv] [TORCH_INDEX_URL=...]'
	@sed -n 's/^\([a-z]*\): .*## \(.*\)/  \1	\2/p' Makefile

demo: $(VENV)/.installed-package ## label the scene that comes with the package
	@echo '==> hsiclust demo'
	$(BIN)/hsiclust demo --overwrite

test: $(VENV)/.installed-test ## run the tests (PYTEST_ARGS='-k grid')
	@echo '==> tests'
	$(BIN)/python -m pytest -n auto $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev ## check style, types and the direction of imports
	@echo '==> ruff, mypy, import-linter'
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev ## put the sources into the project's format
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-bench ## run the benchmarks (BENCHMARKS='one two' picks)
	@test -n '$(strip $(BENCHMARKS))' || echo 'no benchmark is listed: make bench BENCHMARKS=NAME'
	@set -e; for name in $(BENCHMARKS); do \
		case "$$name" in fewlabel) own='$(FEWLABEL_ARGS)';; *) own='';; esac; \
		echo "==> python -m benchmarks.$$name $$own $(BENCH_ARGS)"; \
		$(BIN)/python -m "benchmarks.$$name" $$own $(BENCH_ARGS); \
	done

clean: ## remove the environment, caches and built packages
	@if [ -f '$(VENV)/pyvenv.cfg' ]; then rm -rf '$(VENV)'; fi
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find hsiclust tests benchmarks -type d -name __pycache__ -prune -exec rm -rf {} +

# A stamp file for each set of packages: a second call installs nothing, a changed list does.
$(VENV)/.installed-package: pyproject.toml constraints.txt | $(VENV)/.created
	@echo '==> installing hsiclust into $(VENV) (once; takes some minutes)'
	$(INSTALL) -e .
	@touch $@

$(VENV)/.installed-%: pyproject.toml constraints.txt | $(VENV)/.created
	@echo '==> installing hsiclust with its "$*" extra into $(VENV) (once; takes some minutes)'
	$(INSTALL) -e '.[$*]'
	@touch $@

$(VENV)/.created:
	@command -v '$(PYTHON)' >/dev/null || { \
		echo 'hsiclust: no "$(PYTHON)" on this machine: install Python 3.11 or newer, or name it: make PYTHON=...' >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "hsiclust: Python 3.11 or newer is needed, $(PYTHON) is %d.%d: name another: make PYTHON=python3.12" % v[:2])'
	@'$(PYTHON)' -c 'import ensurepip, venv' 2>/dev/null || { \
		echo 'hsiclust: $(PYTHON) cannot make virtual environments: install its venv package (Debian, Ubuntu: apt install python3-venv)' >&2; exit 1; }
	@echo '==> creating $(VENV) with $(PYTHON)'
	@'$(PYTHON)' -m venv '$(VENV)'
	@touch $@
