# make            build/baton, the release binary
# make test       every unit test (T=kv/pool picks one), with ASan and UBSan
# make e2e        the tests in test/, on the real binary and model
# make check      all that must pass at every commit: warnings as errors, layers, style, sanitizers, fuzzers
# make bench      the programs that bench/*/run measure with
#
# Adding a file is a no-op: sources are found by wildcard, dependencies are written by the compiler.
# V=1 prints whole commands.
# MODE = release | debug (ASan, UBSan) | tsan | fuzz (debug, and the fuzzers see which code they reach); each has its
# own folder under build/.

MODE    ?= release
BUILD   := build/$(MODE)
CC      := gcc
LIBS    := -luv -lhttp_parser -ljansson -lyaml -lpcre2-8 -lutf8proc -lxxhash -lm -lpthread

WARN    := -Wall -Wextra -Wshadow -Wvla -Wundef -Wpointer-arith -Wstrict-prototypes -Wmissing-prototypes \
           -Wold-style-definition -Wwrite-strings -Wformat=2 -Wno-format-nonliteral -Wcast-align \
           -Wnull-dereference -Wduplicated-cond -Wlogical-op -Wno-missing-field-initializers
CFLAGS_release := -O2 -g -DNDEBUG
CFLAGS_debug   := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
CFLAGS_fuzz    := $(CFLAGS_debug) -fsanitize-coverage=trace-pc
CFLAGS_tsan    := -O1 -g -fno-omit-frame-pointer -fsanitize=thread
# c17, not gnu17: GCC must not fuse a*b+c on its own (doc/decisions.md, "the same bits").
CFLAGS  := -std=c17 -fno-var-tracking-assignments -D_GNU_SOURCE -Isrc $(WARN) $(WERROR) $(CFLAGS_$(MODE)) -fno-math-errno -MMD -MP
# The kernels' inner loops want the scheduler and the vectoriser.
$(BUILD)/src/tensor/%.o: CFLAGS += -O3
# Kernels touch only what their arguments name; TSan watches who hands them out, and does not slow them 30 times.
KERNELS_tsan := -fno-sanitize=thread
$(BUILD)/src/tensor/kernels_%.o: CFLAGS += $(KERNELS_$(MODE))

SOURCES := $(filter-out %_test.c,$(wildcard src/*/*.c))
OBJECTS := $(SOURCES:%.c=$(BUILD)/%.o)
LIBRARY := $(BUILD)/libbaton.a
TESTS   := $(patsubst %.c,$(BUILD)/%,$(wildcard src/*/*_test.c))
FUZZERS := $(patsubst %.c,$(BUILD)/%,$(wildcard fuzz/*_fuzz.c))

build/baton: $(BUILD)/baton
	@ln -sf $(MODE)/baton $@
all: build/baton $(TESTS)

ifndef V
.SILENT:
endif

$(BUILD)/%.o: %.c Makefile
	@mkdir -p $(@D)
	@echo "CC   $<"
	$(CC) $(CFLAGS) -c $< -o $@
$(LIBRARY): $(filter-out $(BUILD)/src/cli/main.o,$(OBJECTS))
	@rm -f $@
	ar rcs $@ $^
$(BUILD)/baton: $(BUILD)/src/cli/main.o $(LIBRARY)
	@echo "LINK $@"
	$(CC) $(CFLAGS) $^ -o $@ $(LIBS)
$(BUILD)/%_test: $(BUILD)/%_test.o $(LIBRARY)
	@echo "LINK $@"
	$(CC) $(CFLAGS) $^ -o $@ $(LIBS) -lcmocka
$(BUILD)/%_fuzz: $(BUILD)/%_fuzz.o $(BUILD)/fuzz/driver.o $(LIBRARY)
	@echo "LINK $@"
	$(CC) $(CFLAGS) $^ -o $@ $(LIBS)
.PRECIOUS: $(BUILD)/%.o

$(BUILD)/%_bench: $(BUILD)/%_bench.o $(LIBRARY)
	@echo "LINK $@"
	$(CC) $(CFLAGS) $^ -o $@ $(LIBS)
bench: build/baton $(patsubst %.c,$(BUILD)/%,$(wildcard bench/*/*_bench.c))

test:
	@$(MAKE) --no-print-directory MODE=$(if $(filter release,$(MODE)),debug,$(MODE)) unit T=$(T)
unit: $(if $(T),$(BUILD)/src/$(T)_test,$(TESTS))
	@tools/run-tests $^
fuzz:
	@$(MAKE) --no-print-directory MODE=fuzz fuzzers
fuzzers: $(FUZZERS)
	@tools/run-fuzzers $^
e2e: build/baton
	@test/run $(T)

check:
	@tools/test-all

clean:
	rm -rf build
-include $(OBJECTS:.o=.d) $(TESTS:=.d) $(FUZZERS:=.d)
.PHONY: all test unit fuzz fuzzers e2e check bench clean
