# The two commands to know are `make demo` and `make test`; `make help` lists the rest.

CARGO ?= cargo
# More for the demo: make demo ARGS=--chaos, make demo ARGS="--replicas 1 --listen 127.0.0.1:7000"
ARGS ?=
# How long each fuzz target runs.
FUZZ_SECONDS ?= 60
# How many random faults in a row the containers get, and how long the example application loses its primary every 20 s.
FAULTS ?= 5
MINUTES ?= 1
# How many runs of the simulator, from seed FIRST on.
SEEDS ?= 1000000
FIRST ?= 0

# The suites outside cargo run against the binary that cargo test has built already: with its dependencies optimised,
# and without the minutes that link-time optimisation takes.
export PGBATON_BIN = $(CURDIR)/target/debug/pgbaton

.PHONY: help demo test failover drill-planted lint drivers conformance docker docker-app images bench fuzz sim release

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## a primary, two replicas and pgbaton on this machine, until Ctrl-C (ARGS=--chaos breaks it under load)
	@./setup.sh demo
	@$(CARGO) build --quiet
	@exec $(PGBATON_BIN) demo $(ARGS)

test: ## everything that has to pass: lint, cargo test, drivers, conformance, docker
	@./setup.sh test
	@$(MAKE) --no-print-directory lint
	$(CARGO) test
	@$(MAKE) --no-print-directory drivers
	@$(MAKE) --no-print-directory conformance
	@$(MAKE) --no-print-directory docker

failover: ## every fault on real servers, under load, and the table of what came of it (PGBATON_FAILOVER_RUNS=n: medians)
	@./setup.sh test
	$(CARGO) test --test failover -- --include-ignored
	@cat target/tmp/failover.md

drill-planted: ## proof that a drill finds what is wrong: three faults planted in copies of the source (some minutes)
	@./setup.sh test
	@tests/drill/planted

lint: ## formatting and clippy, warnings are errors
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings

drivers: ## real drivers of six languages through pgbaton
	@$(CARGO) build --quiet
	@if [ -x tests/drivers/run ]; then tests/drivers/run; else echo "skipped: tests/drivers/run does not exist"; fi

conformance: ## PostgreSQL's own regression suite, directly and through pgbaton
	@$(CARGO) build --quiet
	@if [ -x tests/conformance/run ]; then tests/conformance/run; else echo "skipped: tests/conformance/run does not exist"; fi

docker: ## the cluster of docker/compose.yml, broken FAULTS times at random, and the example application (needs a Docker engine)
	@$(CARGO) build --quiet
	@tests/docker/run --faults $(FAULTS) --minutes $(MINUTES)

docker-app: ## the example application with its primary killed every 20 s, for MINUTES
	@$(CARGO) build --quiet
	@tests/docker/run --only example --minutes $(MINUTES)

images: release ## pgbaton:local, pgbaton-node:local and pgbaton-example:local, for docker/compose.yml
	@docker/base-image
	docker build --target prebuilt -f docker/pgbaton.Dockerfile -t pgbaton:local .
	docker build --target prebuilt -f docker/node.Dockerfile -t pgbaton-node:local .
	docker build -t pgbaton-example:local docker/example

bench: release ## direct, HAProxy, PgBouncer and pgbaton in one interleaved run
	@./setup.sh bench
	@if [ -x tests/bench/run ]; then PGBATON_BIN=$(CURDIR)/target/release/pgbaton tests/bench/run; \
	else echo "tests/bench/run does not exist"; exit 1; fi

fuzz: ## every fuzz target for FUZZ_SECONDS each (needs cargo-fuzz and a nightly toolchain)
	@$(CARGO) fuzz --version >/dev/null 2>&1 || { echo "cargo-fuzz is missing: cargo install cargo-fuzz"; exit 1; }
	@set -e; cd tests/fuzz; for target in frames analysis machine; do \
		echo "fuzz $$target"; \
		$(CARGO) +nightly fuzz run --fuzz-dir . "$$target" -- -max_total_time=$(FUZZ_SECONDS); done

sim: ## SEEDS runs of the failover simulator (make test has ten thousand)
	PGBATON_SIM_SEEDS=$(SEEDS) PGBATON_SIM_FIRST=$(FIRST) $(CARGO) test --release --test sim whatever_fails -- --nocapture

release: ## target/release/pgbaton
	$(CARGO) build --release
