# The two commands a newcomer needs are `make demo` and `make test`. Both install what is missing into .venv first;
# PYTHON, DEVICE and TORCH_INDEX say how (see scripts/install.sh).

SPEC ?= feature_specs/short_video.yaml
USERS ?= 5000
VIDEOS ?= 2000
DAYS ?= 9
PROCESSES ?= 2
ARGS ?=

.PHONY: help install install-dev demo day test test-slow lint clean
.DEFAULT_GOAL := help

help:
	@echo "make demo        simulate logs, build samples, train PLE, evaluate: ends with a report in demo/report"
	@echo "make day         SPEC= RAW= SAMPLES= FROM= RUN=: build samples of new days, train on from the run FROM, compare"
	@echo "make test        check style, format and types, run the tests; ARGS='-k history' goes to pytest"
	@echo "make test-slow   run the slow tests"
	@echo "make lint        check style, format and types only"
	@echo "make clean       remove demo/ and caches; .venv stays"

install:
	@scripts/install.sh

install-dev:
	@scripts/install.sh dev

demo: install
	@rm -rf demo
	.venv/bin/python scripts/simulate_logs.py --spec $(SPEC) --out demo/raw --users $(USERS) --videos $(VIDEOS) --days $(DAYS)
	.venv/bin/python scripts/build_samples.py --spec $(SPEC) --raw demo/raw --out demo/samples
	OMP_NUM_THREADS=1 .venv/bin/torchrun --nproc-per-node $(PROCESSES) scripts/train.py --spec $(SPEC) --samples demo/samples --out demo/run
	.venv/bin/python scripts/evaluate.py --run demo/run --samples demo/samples --split test --truth demo/raw/truth --out demo/report
	@echo "The report: $(CURDIR)/demo/report/report.html"

day: install
	@test -n "$(RAW)" -a -n "$(SAMPLES)" -a -n "$(FROM)" -a -n "$(RUN)" || { echo "make day needs RAW= SAMPLES= FROM= RUN= (and SPEC=)" >&2; exit 2; }
	.venv/bin/python scripts/build_samples.py --spec $(SPEC) --raw $(RAW) --out $(SAMPLES)
	OMP_NUM_THREADS=1 .venv/bin/torchrun --nproc-per-node $(PROCESSES) --max-restarts 3 scripts/train.py --spec $(SPEC) --samples $(SAMPLES) --init-from $(FROM) --out $(RUN) $(ARGS)
	.venv/bin/python scripts/compare.py $(FROM) $(RUN) --samples $(SAMPLES) --split test --out $(RUN)-report

test: lint
	.venv/bin/python -m pytest -n 2 --dist loadfile -m "not slow" $(ARGS)

test-slow: install-dev
	.venv/bin/python -m pytest -n 2 --dist load -m slow $(ARGS)

lint: install-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

clean:
	rm -rf demo strata.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
