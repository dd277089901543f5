# Everything happens in .venv, made here: `make demo` and `make test` need nothing but Python.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: setup demo test test-fast test-long long-assets fuzz lint clean

setup: $(READY)

$(READY): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing kilotune and what it needs into .venv (once, a few minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

# Fetched into the user's cache; from here on nothing needs a network.
.PHONY: assets
assets: $(READY)
	@$(BIN)/kilotune fetch smollm2
	@$(BIN)/kilotune sample movie-reviews --out demo
	@$(BIN)/python -m tests.support.assets

demo: assets
	HF_HUB_OFFLINE=1 $(BIN)/kilotune run demo/movie_reviews.csv --text text --label label \
		--test demo/movie_reviews_test.csv

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint assets
	HF_HUB_OFFLINE=1 $(BIN)/pytest -m "not long"

test-fast: assets
	HF_HUB_OFFLINE=1 $(BIN)/pytest -m "not slow and not long"

# For long tests alone: 161 MB of pictures out of a Debian package, and a sentence encoder (84 MB).
long-assets: assets
	@$(BIN)/python -m tests.support.stamps
	@$(BIN)/python -m tests.support.encoder

test-long: long-assets test-trackers test-ray test-transformers-4 test-llama-cpp \
		test-mlx
	HF_HUB_OFFLINE=1 $(BIN)/pytest -m long --dist worksteal

# MLflow wants other versions of some packages: an environment of its own, on top of .venv's.
TRACKERS := .venv-trackers

$(TRACKERS)/.ready: $(READY)
	@test -x $(TRACKERS)/bin/python || $(BIN)/python -m venv $(TRACKERS)
	@$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > \
		$$($(TRACKERS)/bin/python -c 'import site; print(site.getsitepackages()[0])')/over.pth
	@$(TRACKERS)/bin/python -m pip install --quiet --disable-pip-version-check \
		--editable '.[trackers]'
	@touch $@

.PHONY: test-trackers
test-trackers: $(TRACKERS)/.ready
	HF_HUB_OFFLINE=1 $(TRACKERS)/bin/python -m pytest -n 0 tests/runs/with_trackers.py

# Ray, in an environment of its own too: nothing else needs it.
RAY := .venv-ray

$(RAY)/.ready: $(READY)
	@test -x $(RAY)/bin/python || $(BIN)/python -m venv $(RAY)
	@$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > \
		$$($(RAY)/bin/python -c 'import site; print(site.getsitepackages()[0])')/over.pth
	@$(RAY)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[ray]'
	@touch $@

.PHONY: test-ray
test-ray: $(RAY)/.ready
	HF_HUB_OFFLINE=1 $(RAY)/bin/python -m pytest -n 0 tests/ablation/with_ray.py

# What most programs that serve models are built on, without kilotune: torch is .venv's.
OLDER := .venv-transformers-4

$(OLDER)/.ready: $(READY)
	@test -x $(OLDER)/bin/python || $(BIN)/python -m venv $(OLDER)
	@$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > \
		$$($(OLDER)/bin/python -c 'import site; print(site.getsitepackages()[0])')/over.pth
	@$(OLDER)/bin/python -m pip install --quiet --disable-pip-version-check transformers==4.57.6
	@touch $@

.PHONY: test-transformers-4
test-transformers-4: $(OLDER)/.ready
	HF_HUB_OFFLINE=1 KILOTUNE_TRANSFORMERS_4=$(OLDER)/bin/python $(BIN)/python -m pytest -n 0 \
		tests/exports/with_transformers_4.py

# llama.cpp, compiled, and its own converter.
LLAMA := .venv-llama-cpp

$(LLAMA)/.ready: $(READY)
	@test -x $(LLAMA)/bin/python || $(BIN)/python -m venv $(LLAMA)
	@$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > \
		$$($(LLAMA)/bin/python -c 'import site; print(site.getsitepackages()[0])')/over.pth
	@$(LLAMA)/bin/python -m pip install --quiet --disable-pip-version-check \
		--editable '.[llama-cpp]'
	@$(LLAMA)/bin/python -m kilotune fetch llama.cpp
	@touch $@

.PHONY: test-llama-cpp
test-llama-cpp: $(LLAMA)/.ready
	HF_HUB_OFFLINE=1 $(LLAMA)/bin/python -m pytest -n 0 tests/verification/with_llama_cpp.py

# Apple's mlx-lm, which runs on a processor under Linux too.
MLX := .venv-mlx

$(MLX)/.ready: $(READY)
	@test -x $(MLX)/bin/python || $(BIN)/python -m venv $(MLX)
	@$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > \
		$$($(MLX)/bin/python -c 'import site; print(site.getsitepackages()[0])')/over.pth
	@$(MLX)/bin/python -m pip install --quiet --disable-pip-version-check \
		mlx==0.32.4 mlx-cpu==0.32.4 mlx-lm==0.32.2
	@touch $@

.PHONY: test-mlx
test-mlx: $(MLX)/.ready
	HF_HUB_OFFLINE=1 $(MLX)/bin/python -m pytest -n 0 tests/verification/with_mlx.py

# What kilotune is compared with by benchmarks/per_label, in an environment of its own.
PEERS := .venv-peers

.PHONY: peers
peers: $(PEERS)/.ready

$(PEERS)/.ready: $(READY)
	@test -x $(PEERS)/bin/python || $(BIN)/python -m venv $(PEERS)
	@$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > \
		$$($(PEERS)/bin/python -c 'import site; print(site.getsitepackages()[0])')/over.pth
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check \
		trl==1.16.0 setfit==1.2.0
	@touch $@

# Five minutes of broken files for `kilotune check`.
fuzz: $(READY)
	HF_HUB_OFFLINE=1 $(BIN)/python -m tests.support.fuzz --seconds 300

clean:
	rm -rf .venv .venv-peers .venv-ray .venv-trackers .venv-transformers-4 \
		.venv-llama-cpp .venv-mlx build dist src/*.egg-info
