#!/bin/sh
# demo.sh - sets everything up, then runs a prefill engine, a decode engine and a router on this machine and asks
# the model a question.  Arguments go to `baton run`: --prompt TEXT, --single, ... (--help lists them).
set -e
cd "$(dirname "$0")"
tools/setup
tools/build
tools/get-model
exec build/baton run smollm2 "$@"
