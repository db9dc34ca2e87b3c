# A thin front to tools/setup.sh, CMake (see CMakePresets.json) and the scripts in tools/.
MAKEFLAGS += --no-print-directory
PREFIX    ?= /usr/local
DESTDIR   ?=
FUZZ_TIME ?= 60
KILLS     ?= 200
PYTHON    ?= /usr/bin/python3

.PHONY: all setup demo check check-full harness faults coverage fuzz mutants models tidy lint format install clean \
    distclean help
.DEFAULT_GOAL := all

all: setup
	@tools/build dev
	@echo "built: build/headrace ($$(build/headrace --version 2>/dev/null || cat VERSION))"

setup:
	@tools/setup.sh --quiet

demo: setup
	@tools/demo.sh

check: setup
	@tools/check

check-full: check
	@tools/check asan
	@tools/check tsan
	@$(MAKE) faults
	@$(MAKE) harness

harness:
	@$(PYTHON) tests/e2e/harness.py --kills $(KILLS)

faults:
	@HEADRACE_FAULTS=all $(PYTHON) -B -m pytest -q -s -p no:cacheprovider tests/e2e/test_fault_calls.py

coverage: setup
	@tools/setup.sh --dev --quiet
	@tools/check coverage

fuzz:
	@tools/setup.sh --dev --quiet
	@tools/fuzz $(FUZZ_TIME)

tidy:
	@tools/tidy

lint:
	@tools/lint

format:
	@tools/setup.sh --dev --quiet
	@git ls-files -co --exclude-standard '*.c' '*.h' | xargs clang-format -i

mutants: setup
	@tools/mutants

models:
	@examples/fashion-diffusion/run.sh

install: all
	@cmake --install build --prefix "$(abspath $(PREFIX))" --strip >build/install.log || \
	    { cat build/install.log; exit 1; }
	@echo "installed: $(DESTDIR)$(abspath $(PREFIX))/bin/headrace"

clean:
	@rm -rf build build-* .demo

distclean: clean
	@rm -rf .deps

help:
	@echo "make            set up what is missing, build build/headrace"
	@echo "make demo       draw a picture from a prompt: server, worker and client on this machine"
	@echo "make check      build, unit, fault and end-to-end tests, house rules"
	@echo "make check-full the same, then all of it under ASan + UBSan and under TSan, faults, harness"
	@echo "make harness    KILLS=$(KILLS) kills of a real server under load, power cuts and full disks; ~10 min"
	@echo "make faults     every n-th call of a real server fails once; ~20 min"
	@echo "make coverage   which lines and branches the C tests reach, a folder a line"
	@echo "make fuzz       every fuzz target for FUZZ_TIME=$(FUZZ_TIME) seconds (clang)"
	@echo "make mutants    breaks the server on purpose; the simulator has to find each"
	@echo "make lint       clang-tidy, gcc -fanalyzer, cppcheck; make format: clang-format"
	@echo "make install    PREFIX=$(PREFIX) DESTDIR=$(DESTDIR)"
	@echo "make models     train the example model again (takes long)"
	@echo "make clean      remove what was built; make distclean also what was fetched"
