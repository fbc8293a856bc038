# make serve   installs what is missing and serves smollm2 at http://127.0.0.1:8000
# make test    installs what is missing and runs the tests
# The others: check, bench, bench-peers, docs, test-oracle, eval-quality, soak, recovery, batch-kills, many-models, fuzz-http, clean.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: serve test check bench bench-peers docs test-oracle eval-quality soak recovery batch-kills many-models fuzz-http clean

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -qq
ARGS ?=
BENCH ?= micro engine serving coldstart speculation overhead

SOURCES := pyproject.toml CMakeLists.txt $(wildcard native/*.cpp native/*.h native/*.inl)
INSTALLED := $(VENV)/.installed
DEVELOP := $(VENV)/.develop
ORACLE := .venv-oracle/.installed
WEB := $(VENV)/.web

serve: $(INSTALLED) $(WEB)
	exec $(BIN)/inferd serve $(ARGS)

test: $(DEVELOP) $(WEB)
	$(BIN)/python -m pytest -m "not oracle and not slow" $(ARGS)

check: $(DEVELOP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -p no:cacheprovider tests/pure/test_imports.py
	$(BIN)/python tools/size_report.py

bench: $(DEVELOP)
	for name in $(BENCH); do $(BIN)/python benchmarks/$$name.py $(ARGS); done

# PEERS: the folder of other engines, MODELS: the GGUF files, as benchmarks/peers.py says
bench-peers: $(DEVELOP)
	$(BIN)/python benchmarks/peers.py "$(PEERS)" "$(MODELS)" $(ARGS)

docs: $(DEVELOP)
	$(BIN)/python tools/reference_docs.py
	$(BIN)/python tools/planner_docs.py
	$(BIN)/python tools/compat_docs.py

test-oracle: $(ORACLE)
	.venv-oracle/bin/python -m pytest -m oracle $(ARGS)

eval-quality soak recovery: $(DEVELOP)
	$(BIN)/python benchmarks/$(@:eval-%=%).py $(ARGS)

batch-kills: $(DEVELOP)
	$(BIN)/python benchmarks/batch_kills.py $(ARGS)

many-models: $(DEVELOP)
	$(BIN)/python benchmarks/many_models.py $(ARGS)

fuzz-http: $(DEVELOP)
	$(BIN)/python benchmarks/fuzz_http.py $(ARGS)

# An editable install: Python sources are used where they lie; a change of native/ builds again. Without build isolation
# where the tools are there: objects are then kept from build to build (6 s instead of 67 s for one changed file).
$(INSTALLED): $(SOURCES)
	@begin=$$SECONDS
	python=$$(tools/prerequisites.sh)
	[ -x $(BIN)/python ] || "$$python" -m venv $(VENV)
	$(BIN)/python -c "import cmake, nanobind, ninja, scikit_build_core" 2> /dev/null && alone=--no-build-isolation || alone=
	$(PIP) $$alone -e .
	touch $@
	echo "installed inferd in $$((SECONDS - begin)) s"

$(DEVELOP): $(INSTALLED) pyproject.toml tools/extras.py
	@begin=$$SECONDS
	$(BIN)/python tools/extras.py test build check plots otel vision grpc > $(VENV)/extras.txt
	$(PIP) -r $(VENV)/extras.txt
	touch $@
	echo "installed the tools of development in $$((SECONDS - begin)) s"

$(WEB): tools/build_web.sh $(wildcard web/*.js* web/index.html web/src/*.* web/src/*/*.*) | $(INSTALLED)
	tools/build_web.sh
	touch $@

# torch for the CPU alone is 200 MB, with CUDA several GB: ORACLE_PIP may name an index that has the small one.
$(ORACLE): $(SOURCES) tools/extras.py
	@python=$$(tools/prerequisites.sh)
	[ -x .venv-oracle/bin/python ] || "$$python" -m venv .venv-oracle
	.venv-oracle/bin/python tools/extras.py test oracle > .venv-oracle/extras.txt
	.venv-oracle/bin/python -m pip install --disable-pip-version-check -qq $(ORACLE_PIP) -r .venv-oracle/extras.txt
	.venv-oracle/bin/python -m pip install --disable-pip-version-check -qq -e .
	touch $@

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
.ONESHELL:
