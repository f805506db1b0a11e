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
# Of dev: faults in words and their seed, a file for the session, lines for programs: make dev FAULTS='kms.Decrypt throttle 10%' SEED=7 RECORD=a.jsonl JSON=1
# (docs/local-stack.md). REBUILD= leaves functions whose source changes as they are.
FAULTS ?=
SEED ?=
RECORD ?=
JSON ?=
REBUILD ?= $(CARGO)
FILE ?=
BUILD_OF ?=

# Of soak: how many operations, and whose functions: make soak SEED=7 OPERATIONS=100000 FAULTS='kms.Decrypt 5xx 20%' (docs/soak.md)
OPERATIONS ?=
WITHOUT ?=
BINARIES ?=

# Arguments for the two below: make build ARCH=arm64, make bench BENCH=--check
ARCH ?=
BENCH ?=
BUNDLE ?=
LOG ?=

# make fuzz TARGET=access_token RUNS=10000000 (docs/fuzzing.md)
TARGET ?=
TIME ?=
RUNS ?=
KEEP ?=
# make mutants SHARD=1/20 FILE=shared/src/gate.rs
SHARD ?=
FILE ?=

# What a column holds: make index-advice VALUES=100000 (docs/formats/blind-index.md)
VALUES ?=
ROWS ?=
MOST ?=

# An operator's act: make admin OP=client.list ARGS='{"tenant":"acme"}' (docs/operations/admin.md)
OP ?=
ARGS ?=
OPERATOR ?=
# An act that stops before its end goes on until it is through: make admin OP=keys.rewrap ALL=1 (docs/operations/data-keys.md)
ALL ?=

# Arguments of the targets for AWS: make deploy ENV=prod PROFILE=lean ISSUER=https://api.example.com AUDIENCE=… TEAM=…
# What is not given there may stand in infra/aws/deploy.env.
NAMES := ENV PROFILE REGION ISSUER AUDIENCE TEAM IMAGE WITH ARCH PARAMETERS SETTINGS DRY_RUN ALLOW_REPLACE ALLOW_DEFAULTS FUNCTION VERSION SINCE FOLLOW
# These change what a command does to a deployment, and a shell may have them for reasons of its own (VERSION above all).
TYPED := VERSION ALLOW_REPLACE ALLOW_DEFAULTS
DEPLOY := target/debug/deploy
# One word for the shell, whatever is in it.
quoted = '$(subst ','\'',$(1))'
given = $(if $(filter $(1),$(TYPED)),$(filter command line,$(origin $(1))),$($(1)))
SAID = $(foreach name,$(NAMES),$(if $(call given,$(name)),$(call quoted,$(name)=$($(name)))))
TOOL := $(CARGO) build --quiet --package deploy --locked

.PHONY: help demo dev admin replay test test-clients test-faults test-system fuzz mutants check build sbom supply-chain reproducible
.PHONY: soak replay-session figures differential schemathesis bench peers scale policy index-advice fmt lint clean need
.PHONY: invariants render preflight plan deploy deploy-code rollback logs destroy cost verify-live check-infra scan

help: ## print this list
	@awk 'BEGIN {FS = ":.*## "} /^##@ / {print "\n" substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

need: ## install what the local stack needs (Postgres 15 or later), as root or not
	@scripts/need-postgres

demo: need ## build, start the local stack, run the whole journey and every refusal, print them as a table
	@echo "building (the first time takes minutes, the AWS SDKs are large) ..."
	@$(BUILD)
	@$(STACK) demo $(foreach one,$(PARAMETERS),$(call quoted,$(one)))

dev: need ## the local stack in the foreground: what the gate decides, line by line and as a page; rebuilds functions (FAULTS=… SEED=… RECORD=… JSON=1)
	@echo "building (the first time takes minutes, the AWS SDKs are large) ..."
	@$(BUILD)
	@$(STACK) dev $(if $(JSON),--json) $(if $(FAULTS),--faults $(call quoted,$(FAULTS))) $(if $(SEED),--seed $(call quoted,$(SEED))) \
		$(if $(RECORD),--record $(call quoted,$(RECORD))) $(if $(REBUILD),--rebuild $(call quoted,$(REBUILD))) \
		$(foreach one,$(PARAMETERS),$(call quoted,$(one)))

replay-session: need ## send a recorded session (FILE=…, from make dev RECORD=…) to a fresh stack; what differs is printed and is a failure
	@$(BUILD)
	@$(STACK) replay $(call quoted,$(FILE)) $(foreach one,$(PARAMETERS),$(call quoted,$(one)))

test: need ## everything that proves it
	@scripts/need-valgrind
	@$(BUILD)
	@scripts/test
	@scripts/test-clients

test-clients: need ## programs nobody here wrote (PyJWT, boto3, the AWS CLI, psql, curl, ...) against a stack of their own
	@$(BUILD)
	@scripts/test-clients

differential: need ## the same probes against our stack, moto and MiniStack (PyPI); writes docs/differential.md
	@$(BUILD)
	@scripts/need-emulators
	@PEERS=1 scripts/test-clients differential

schemathesis: need ## requests made from the OpenAPI document, with ten seeds more than the everyday tests (SEEDS=10): minutes
	@$(BUILD)
	@SCHEMATHESIS=$(or $(SEEDS),10) scripts/test-clients schemathesis

test-faults: need ## every call under every fault of its surroundings, against tests/system/faults.txt: four minutes
	@$(BUILD)
	@$(CARGO) test --workspace --test fault_table --locked

soak: need ## operations by the thousand under random faults, and everything looked for afterwards (SEED=7 OPERATIONS=100000 FAULTS=…)
	@$(BUILD)
	@target/debug/soak $(if $(SEED),--seed $(call quoted,$(SEED))) $(if $(OPERATIONS),--operations $(call quoted,$(OPERATIONS))) \
		$(if $(FAULTS),--faults $(call quoted,$(FAULTS))) $(if $(WITHOUT),--without $(call quoted,$(WITHOUT))) $(if $(BINARIES),--binaries $(call quoted,$(BINARIES)))

test-system: need ## the rendered templates, the functions and cargo lambda deploy on a cloud nobody here wrote (MiniStack)
	@$(BUILD)
	@scripts/test-system

fuzz: ## search for inputs that break a parser: every target for TIME=10 seconds (TARGET=… RUNS=…; KEEP=1 keeps what it finds)
	@TARGET=$(call quoted,$(TARGET)) TIME=$(call quoted,$(TIME)) RUNS=$(call quoted,$(RUNS)) KEEP=$(call quoted,$(KEEP)) scripts/fuzz

mutants: ## change the deciding modules one place at a time and see whether a test notices (SHARD=1/20 FILE=…; docs/mutants.md)
	@SHARD=$(call quoted,$(SHARD)) FILE=$(call quoted,$(FILE)) scripts/mutants

check: fmt lint test ## what CI runs: format, lints, floors, licences, tests, templates, demo
	@scripts/check-infra
	@$(STACK) demo

figures: need ## what the local stack itself costs: until it is ready, of a request, in memory (BUILD_OF=release: of that build)
	@$(BUILD) $(if $(filter release,$(BUILD_OF)),--release)
	@scripts/test-clients packages
	@.local/clients/venv/bin/python scripts/figures $(or $(BUILD_OF),debug)

admin: ## one operator's act on the stack of make dev: make admin OP=client.list ARGS='{"tenant":"acme"}' (ENV=prod: on AWS)
	@ENV=$(call quoted,$(if $(filter command line,$(origin ENV)),$(ENV))) OPERATOR=$(call quoted,$(OPERATOR)) ALL=$(call quoted,$(ALL)) scripts/admin $(call quoted,$(OP)) $(call quoted,$(ARGS))

replay: ## hand a function's dead letters to it once more, on the stack of make dev (FUNCTION=object-events; ENV=prod: on AWS; DRY_RUN=1: look)
	@ENV=$(call quoted,$(if $(filter command line,$(origin ENV)),$(ENV))) DRY_RUN=$(call quoted,$(DRY_RUN)) scripts/replay $(call quoted,$(or $(FUNCTION),object-events))

fmt: ## check the format
	@$(CARGO) fmt --all --check

lint: ## clippy, warnings are errors
	@$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

build: ## zips for Lambda with cargo-lambda, for this machine's architecture (ARCH=arm64 for the other)
	@scripts/build $(if $(ARCH),$(call quoted,$(ARCH)))

sbom: ## what each zip is made of, as CycloneDX: target/lambda/<function>/bom.json
	@scripts/sbom

supply-chain: ## cargo-deny over everything that is linked: licences, sources, bans; advisories where there is a network
	@scripts/supply-chain

reproducible: ## build FUNCTION=issuer-keys twice, in two folders, and compare the zips (minutes)
	@scripts/reproducible $(call quoted,$(or $(FUNCTION),issuer-keys))

peers: ## install what the bench measures beside ours (Python, Node, PHP): tests/bench/peers
	@scripts/need-peers

bench: need peers ## what the release binaries cost, in ratios to an empty handler, beside others (BENCH=--check holds the budgets)
	@echo "building with the release profile (minutes: every program is optimised as a whole) ..."
	@$(BUILD) --release
	@target/release/bench $(foreach one,$(BENCH),$(call quoted,$(one)))

scale: ## which quota of AWS a fleet meets first: simulates it and writes docs/scale.md
	@$(CARGO) run --quiet --package fleet --locked -- page

policy: ## would verifiers use a bundle (BUNDLE=…), and what would it change (LOG=…); OPERATOR=… prints the event that puts it
	@$(BUILD) --quiet
	@target/debug/policy $(call quoted,$(BUNDLE)) $(if $(LOG),--log $(call quoted,$(LOG))) $(if $(OPERATOR),--event $(call quoted,$(OPERATOR)))

index-advice: ## how long the entries of a blind index should be: make index-advice VALUES=100000 ROWS=1000000 MOST=20000
	@scripts/index-advice $(foreach one,$(VALUES) $(ROWS) $(MOST),$(call quoted,$(one)))

##@ On AWS (make deploy ENV=prod PROFILE=lean ISSUER=https://… AUDIENCE=… TEAM=…; docs/deploy/README.md):

preflight: ## name everything that a deployment lacks, at once
	@$(TOOL)
	@$(DEPLOY) preflight $(SAID)

plan: ## the ordered steps with their parameters; with credentials, what CloudFormation would change. Changes nothing
	@$(TOOL)
	@$(DEPLOY) plan $(SAID)

deploy: ## the one command: preflight, then every step; may be repeated (DRY_RUN=1: plan)
	@$(TOOL)
	@$(DEPLOY) deploy $(SAID)

deploy-code: ## replace the code of one function (FUNCTION=token) by cargo lambda deploy, nothing else, and move its alias
	@$(TOOL)
	@$(DEPLOY) code $(SAID)

rollback: ## move the alias of one function (FUNCTION=token) to the version before, or to VERSION=…
	@$(TOOL)
	@$(DEPLOY) rollback $(SAID)

logs: ## the log of one function (FUNCTION=token), of the last SINCE=10 minutes; FOLLOW=1 goes on
	@$(TOOL)
	@$(DEPLOY) logs $(SAID)

verify-live: ## ask a deployed account, reading only, whether the invariants of the templates hold there
	@$(TOOL)
	@$(DEPLOY) verify-live $(SAID)

destroy: ## delete the stacks that hold no data, after the deployment's name was typed; names what stays
	@$(TOOL)
	@$(DEPLOY) destroy $(SAID)

##@ Templates:

render: ## write the templates as they are deployed to target/infra
	@$(TOOL)
	@$(DEPLOY) render

invariants: ## print what must hold of the templates, and for each the edits that it is known to catch
	@$(CARGO) run --quiet --package invariants --example invariants --locked

check-infra: ## cfn-lint, parliament and the cost page on the rendered templates (the invariants run in make test)
	@$(TOOL)
	@scripts/check-infra

cost: ## write docs/cost.md: what each profile costs a month, counted from the templates
	@$(TOOL)
	@$(DEPLOY) cost

scan: render ## a general scanner (checkov) over the rendered templates; optional, its silence proves nothing
	@scripts/scan

##@ And:

clean: ## remove what the local stack keeps
	@rm -rf .local
