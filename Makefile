# What people type. CI runs `make check` and has no commands of its own.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo
# The whole workspace in one profile: building packages one by one would compile the SDKs again for each set of features.
BUILD := $(CARGO) build --workspace --bins --locked
STACK := target/debug/local
# Of the template, for demo and dev: make demo PARAMETERS=Signer=ssm
PARAMETERS ?=
# Arguments for the two below: make build ARCH=arm64, make bench BENCH=--check
ARCH ?=
BENCH ?=

.PHONY: help demo dev test test-clients test-faults check build bench fmt lint clean need

help: ## print this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

need: ## install what the local stack needs (Postgres 15 or later), as root or not
	@scripts/need-postgres

demo: need ## build, start the local stack, run the whole journey and every refusal, print them as a table
	@echo "building (the first time takes minutes, the AWS SDKs are large) ..."
	@$(BUILD)
	@$(STACK) demo $(PARAMETERS)

dev: need ## the local stack in the foreground, with lines to paste
	@echo "building (the first time takes minutes, the AWS SDKs are large) ..."
	@$(BUILD)
	@$(STACK) dev $(PARAMETERS)

test: need ## everything that proves it
	@$(BUILD)
	@scripts/test
	@scripts/test-clients

test-clients: need ## programs nobody here wrote (PyJWT, boto3, the AWS CLI, psql, curl, ...) against a stack of their own
	@$(BUILD)
	@scripts/test-clients

test-faults: need ## every call under every fault of its surroundings, against tests/system/faults.txt: four minutes
	@$(BUILD)
	@$(CARGO) test --workspace --test fault_table --locked

check: fmt lint test ## what CI runs: format, lints, floors, licences, tests, demo
	@$(STACK) demo

fmt: ## check the format
	@$(CARGO) fmt --all --check

lint: ## clippy, warnings are errors
	@$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

build: ## zips for Lambda with cargo-lambda, for this machine's architecture (ARCH=arm64 for the other)
	@scripts/build $(ARCH)

bench: need ## what the release binaries cost, in ratios to an empty handler (BENCH=--check holds the budgets)
	@echo "building with the release profile (minutes: every program is optimised as a whole) ..."
	@$(BUILD) --release
	@target/release/bench $(BENCH)

clean: ## remove what the local stack keeps
	@rm -rf .local
