# Every developer command. `make demo` and `make test` each start from nothing but Python and Rust,
# and redo nothing that is up to date.

SHELL := /bin/sh
.SHELLFLAGS := -euc
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
ARGS ?=
SEEDS ?= 5000
KILLS ?= 300
T ?= frame
SECONDS ?= 20

export PATH := $(PATH):/usr/sbin:/sbin
export PYO3_PYTHON := $(CURDIR)/.venv/bin/python

# .venv has the tools and the optimised build with assertions, editable; build/demo has what users
# get: the release build, installed. So neither makes the other rebuild.
VENV := .venv
DEMO := build/demo
TOOLS := $(VENV)/.tools
NATIVE := $(VENV)/.native
INSTALLED := $(DEMO)/.installed
MEASURING := $(DEMO)/.measuring
SAVED := build/bench/python
STUB := python/cmgmux/_native.pyi
# What is built from the source distribution, wherever that is unpacked.
DIST_TARGET := $(CURDIR)/target/dist

# What makes libFuzzer see which code an input reaches.
COVERAGE := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares

RUST_SOURCES := Cargo.toml Cargo.lock $(shell find rust -name target -prune -o \
	\( -name '*.rs' -o -name Cargo.toml \) -print)
PYTHON_SOURCES := $(shell find python -name '*.py' -o -name '*.pyi' -o -name py.typed)

.PHONY: help
help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | \
		while IFS="$$(printf '\t')" read -r name text; do printf '  %-14s %s\n' "$$name" "$$text"; done

.PHONY: setup
setup: $(TOOLS) ## Make .venv with the tools that the other commands use

.PHONY: setup-system
setup-system: ## Install the Debian packages that tests use, if allowed to
	@missing=; for program in nginx curl valgrind; do \
		command -v $$program >/dev/null || missing="$$missing $$program"; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ]; then as_root=; else as_root="sudo -n"; fi; \
	if command -v apt-get >/dev/null && $$as_root true 2>/dev/null; then \
		echo "installing$$missing"; \
		if $$as_root apt-get update -qq && \
			DEBIAN_FRONTEND=noninteractive $$as_root apt-get install -qq -y \
				--no-install-recommends $$missing >/dev/null; then exit 0; fi; \
	fi; \
	echo "please install:$$missing (tests that need them are skipped without)" >&2; \
	[ "$${CI:-}" != true ]

.PHONY: build
build: $(NATIVE) ## Build the native module for development, with assertions, into .venv

.PHONY: demo
demo: $(INSTALLED) ## Show the whole path on this machine; ARGS="--clients 5000 --keep"
	@$(DEMO)/bin/cmgmux demo $(ARGS)

.PHONY: fmt
fmt: $(TOOLS) ## Format all source
	cargo fmt --all
	$(VENV)/bin/ruff format
	$(VENV)/bin/ruff check --fix-only --quiet

.PHONY: lint
lint: $(NATIVE) ## Check format, lints, types and the generated stub
	cargo fmt --all -- --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/ruff check
	$(VENV)/bin/mypy
	@$(MAKE) --no-print-directory build/stubs
	@diff -u $(STUB) build/stubs/cmgmux/_native.pyi || \
		{ echo "$(STUB) is out of date: run make stubs" >&2; exit 1; }
	$(VENV)/bin/python -m mypy.stubtest cmgmux._native

.PHONY: test
test: setup-system test-rust test-python ## Run all tests

.PHONY: test-rust
test-rust: $(TOOLS) ## Run the tests of the Rust crates
	cargo test --workspace --exclude cmgmux-py --locked
	@libraries=$$($(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))'); \
	name=$$($(VENV)/bin/python -c 'import sys; print("python%d.%d" % sys.version_info[:2])'); \
	if echo 'int main(void) { return 0; }' | \
		cc -x c - -L"$$libraries" -l"$$name" -o /dev/null 2>/dev/null; then \
		LD_LIBRARY_PATH="$$libraries$${LD_LIBRARY_PATH:+:$$LD_LIBRARY_PATH}" \
			cargo test -p cmgmux-py --locked; \
	else \
		echo "skipped: the Rust tests of cmgmux-py link lib$$name, which is not installed" >&2; \
		[ "$${CI:-}" != true ]; \
	fi

.PHONY: test-python
test-python: $(NATIVE) ## Run the Python tests, end to end ones included; ARGS="-k name"
	$(VENV)/bin/pytest $(ARGS)

.PHONY: sim
sim: ## Play the protocol over bad links; SEEDS=5000, SEED=7 shows one run, PLAN=file a saved one
	cargo run --quiet -p cmgmux-sim --locked -- \
		$(if $(PLAN),plan $(PLAN),$(if $(SEED),seed $(SEED),seeds $(SEEDS))) \
		|| { echo "this was commit $$(git describe --always --dirty); others draw other plans from a seed" >&2; exit 1; }

# The source distribution leaves out crates that only tests need, so its lock file holds more than it
# needs: cargo takes that out, and keeps the versions of the rest.
.PHONY: dist
dist: $(TOOLS) ## Build the wheel and the source distribution into dist/
	rm -rf dist
	env -u PYO3_PYTHON CARGO_TARGET_DIR=$(DIST_TARGET) \
		$(VENV)/bin/maturin build --quiet --release --sdist --out dist
	@ls dist

.PHONY: test-dist
test-dist: dist ## Install either into an empty environment and run the demo there
	@for package in dist/*.whl dist/*.tar.gz; do \
		echo "installing $$package"; \
		rm -rf build/empty; \
		$(PYTHON) -m venv build/empty; \
		env -u PYO3_PYTHON CARGO_TARGET_DIR=$(DIST_TARGET) \
			build/empty/bin/pip install --quiet "$$package"; \
		(cd build && empty/bin/cmgmux demo --clients 60 --seconds 0); \
	done

.PHONY: guard-instructions
guard-instructions: $(TOOLS) setup-system ## Compare the instructions of hot paths with the baseline
	@$(VENV)/bin/python -m bench.instructions $(ARGS)

.PHONY: check
check: lint test guard-instructions test-dist ## What must pass before a change lands

.PHONY: stubs
stubs: build/stubs ## Generate the stub of the native module from its binary
	cp build/stubs/cmgmux/_native.pyi $(STUB)

# libFuzzer comes with a crate and needs a C++ compiler; the corpora in the tree are only read.
.PHONY: fuzz
fuzz: ## Fuzz a target for a while; T=frame SECONDS=20
	@RUSTFLAGS="$(COVERAGE)" cargo build -p cmgmux-fuzz --bin cmgmux-fuzz --features libfuzzer \
		--locked --target "$$(rustc --print host-tuple)" --target-dir target/fuzz
	@mkdir -p build/fuzz/$(T)
	FUZZ_TARGET=$(T) target/fuzz/"$$(rustc --print host-tuple)"/debug/cmgmux-fuzz \
		-max_total_time=$(SECONDS) -max_len=1024 -timeout=10 -artifact_prefix=build/fuzz/$(T)- \
		-verbosity=0 -print_final_stats=1 build/fuzz/$(T) rust/fuzz/corpus/$(T)

.PHONY: prove
prove: prove-handshake prove-sim prove-planted prove-links prove-fuzz prove-heads ## What CI runs besides `make check`, about 25 minutes

.PHONY: prove-handshake
prove-handshake: ## Play every order of losses, claims and a claim that comes again
	cargo run --quiet -p cmgmux-sim --locked -- handshake large

.PHONY: prove-sim
prove-sim: sim ## Play SEEDS=5000 runs, and cut one conversation at every byte
	cargo run --quiet -p cmgmux-sim --locked -- cuts

.PHONY: prove-planted
prove-planted: | prerequisites ## See that `make sim` finds planted faults; ARGS="--name reset"
	$(PYTHON) rust/sim/planted.py $(ARGS)

.PHONY: prove-links
prove-links: ## Kill KILLS=300 links of real channels under load
	KILLS=$(KILLS) cargo test -p cmgmux-net --test net links_killed --locked

.PHONY: prove-fuzz
prove-fuzz: ## Fuzz every target; SECONDS=20 for each
	@for target in $(notdir $(wildcard rust/fuzz/corpus/*)); do \
		$(MAKE) --no-print-directory fuzz T=$$target; \
	done

.PHONY: prove-heads
prove-heads: $(TOOLS) ## Compare what our readers and h11 make of heads of HTTP/1.1
	cargo build -p cmgmux-fuzz --bin cmgmux-heads --locked
	$(VENV)/bin/pytest rust/fuzz/test_heads.py

.PHONY: fuzz-corpus
fuzz-corpus: ## Put what `make fuzz` found new into the corpus of T and take what is superfluous out
	@rm -rf build/fuzz/corpus
	@mkdir -p build/fuzz/corpus build/fuzz/$(T)
	FUZZ_TARGET=$(T) target/fuzz/"$$(rustc --print host-tuple)"/debug/cmgmux-fuzz -merge=1 \
		-use_counters=0 -max_len=1024 -artifact_prefix=build/fuzz/$(T)- \
		build/fuzz/corpus rust/fuzz/corpus/$(T) build/fuzz/$(T)
	@rm -rf rust/fuzz/corpus/$(T)
	@mv build/fuzz/corpus rust/fuzz/corpus/$(T)

.PHONY: bench
bench: $(INSTALLED) ## Run the benchmarks on the release build; ARGS are theirs
	$(DEMO)/bin/python -m bench.path $(ARGS)

.PHONY: bench-mux
bench-mux: $(INSTALLED) ## Compare the multiplexer with its rivals; ARGS="--scenario echo"
	$(DEMO)/bin/python -m bench.mux $(ARGS)

.PHONY: bench-compare
bench-compare: $(INSTALLED) $(MEASURING) ## Measure what Python users feel against the run saved last
	@if [ -z "$$(find $(SAVED) -name '*.json' 2>/dev/null)" ]; then \
		compare=; echo "no run is saved: this one is, and compared with nothing"; \
	else compare=--benchmark-compare; fi; \
	$(DEMO)/bin/python -m pytest bench/python --quiet --benchmark-storage=file://$(CURDIR)/$(SAVED) \
		--benchmark-save=run $$compare --benchmark-group-by=fullname --benchmark-sort=min \
		--benchmark-columns=min,median,iqr,rounds $(ARGS)

.PHONY: clean
clean: ## Remove everything that was built
	rm -rf target build dist $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find python tests bench -name __pycache__ -prune -exec rm -rf {} +
	rm -f python/cmgmux/_native.*.so

.PHONY: prerequisites
prerequisites:
	@command -v $(PYTHON) >/dev/null || \
		{ echo "$(PYTHON) not found: install Python 3.11 or newer, or set PYTHON" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$$($(PYTHON) --version) is too old: install 3.11 or newer, or set PYTHON" >&2; exit 1; }
	@command -v cargo >/dev/null || \
		{ echo "cargo not found: install a current stable Rust (rustup.rs)" >&2; exit 1; }

# pip before 25.1 cannot read dependency groups.
$(TOOLS): pyproject.toml | prerequisites
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "cannot make $(VENV): install Python's venv module (Debian: python3-venv)" >&2; exit 1; }
	$(VENV)/bin/pip install --quiet --upgrade 'pip>=25.1'
	$(VENV)/bin/pip install --quiet --group dev
	@touch $@

$(NATIVE): $(TOOLS) $(RUST_SOURCES) LICENSE README.md
	PIP_QUIET=1 VIRTUAL_ENV=$(CURDIR)/$(VENV) $(VENV)/bin/maturin develop --quiet --locked
	@touch $@

$(INSTALLED): pyproject.toml $(RUST_SOURCES) $(PYTHON_SOURCES) LICENSE README.md | prerequisites
	@test -x $(DEMO)/bin/python || $(PYTHON) -m venv $(DEMO) || \
		{ echo "cannot make $(DEMO): install Python's venv module (Debian: python3-venv)" >&2; exit 1; }
	@echo "building the release; the first time takes a few minutes"
	env -u PYO3_PYTHON $(DEMO)/bin/pip install --quiet .
	@touch $@

$(MEASURING): $(INSTALLED) pyproject.toml
	$(DEMO)/bin/pip install --quiet --upgrade 'pip>=25.1'
	$(DEMO)/bin/pip install --quiet --group bench
	@touch $@

build/stubs: $(NATIVE)
	@rm -rf $@
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(VENV)/bin/maturin generate-stubs --quiet --profile dev --locked -o $@
	@touch $@
