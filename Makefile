# Two commands do everything on a fresh machine with Python 3.11+ and make: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DATA ?=
OUT ?= runs/photos
FLAGS ?=

# Byte code is kept: a second start imports torch in seconds less.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo train test examples slow check format docs notebooks wheel bench clean

demo: $(READY)
	$(BIN)/saccade demo $(FLAGS)

train: $(READY)
	@test -n "$(DATA)" || { echo "say which images: make train DATA=photos/ OUT=runs/photos"; exit 2; }
	$(BIN)/saccade train "$(DATA)" --out "$(OUT)" $(FLAGS)

# Every test but the slow ones and those of the documentation.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(FLAGS)  # two processes, a thread each

# What the documentation shows: notebooks, Python, the commands of First steps, clients, pages in a browser.
examples: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m examples --dist loadfile $(FLAGS)

# The slow tests. CI has no time for them: run them before a release, and after changes to what they test.
slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m 'slow and not examples' --dist loadfile $(FLAGS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)
	$(BIN)/python -c 'from saccade.recipe import recipe_as_markdown; print(recipe_as_markdown(), end="")' > docs/recipe.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	@echo "the site is in site/: open site/index.html"

# Executes the examples anew and keeps what they show.
notebooks: $(READY)
	cd examples && ../$(BIN)/jupyter-execute --inplace --timeout=600 --NotebookClient.record_timing=False *.ipynb
	rm -rf examples/runs examples/digits examples/writers

# Built from the last commit, installed into new environments, used: PYTHONS="python3.12 python3.13" tries others.
wheel: $(READY)
	$(BIN)/python -m benchmarks.wheel --python $(or $(PYTHONS),$(PYTHON)) $(FLAGS)
	$(BIN)/python -m benchmarks.wheel --resolve 3.11 3.12 3.13 3.14

bench: $(READY)
	$(BIN)/python -m benchmarks $(FLAGS)

# uv lives inside the environment, so nothing outside the checkout is touched.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "saccade needs Python 3.11 or newer; do: make PYTHON=python3.12"; exit 2; }
	$(BIN)/python -m pip install --quiet --upgrade uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraints constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
