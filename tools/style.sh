#!/bin/sh
# style.sh - what a machine can hold of our style: see CONTRIBUTING.md.  Prints file:line: rule; fails if there is any.
cd "$(dirname "$0")/.." || exit 2
bad=$(
    ls src/*/*.[ch] fuzz/*.c bench/*/*.c 2>/dev/null | xargs awk '
        function complain(text) { print FILENAME ":" FNR ": style: " text }
        FNR == 1 { if ($0 !~ /SPDX-License-Identifier: Apache-2.0/) complain("first line is the SPDX line"); open = 0 }
        { line = $0; gsub(/[\200-\277]/, "", line) } # mawk counts bytes
        length(line) > 100 { complain(length(line) " columns, 100 at most") }
        /\t/ { complain("tab") }
        / $/ { complain("blank at the end") }
        /^[^"]*[^"a-z_>.](strcpy|strcat|sprintf|gets|atoi|atol|strtok|alloca|fork|sleep|usleep|rand|gmtime|localtime)\(/ { complain("banned function: " $0) }
        /(^|[^a-z_])goto / { complain("goto") }
        /[a-z]_t;/ && /typedef/ { complain("_t belongs to POSIX") }
        /^[A-Za-z_].*\)[ \t]*\{[ \t]*$/ { open = FNR; name = $0; sub(/\(.*/, "", name); sub(/.*[ *]/, "", name) }
        /^}/ { if (open && FNR - open > 120) complain(name "() has " FNR - open " lines, 120 at most"); open = 0 }
        FNR == 1501 { complain("over 1500 lines") }'
    for header in src/*/*.h; do
        case $header in */internal.h) continue;; esac
        sed -n 2,3p "$header" | grep -q "^/\* $(basename "$header") - " || echo "$header:2: style: second line says what the header is for"
    done)
[ -z "$bad" ] && exit 0
printf '%s\n' "$bad"
exit 1
