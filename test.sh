#!/bin/sh
# test.sh - sets everything up and runs every test; closes with "N passed, N failed".
cd "$(dirname "$0")" || exit 2
tools/setup test && tools/get-model || exit 1
exec tools/test-all
