#!/usr/bin/env bash
# lint BUILD_DIR: the rules a machine can check. Prints each breach with its place; exit 1 on any.
set -uo pipefail
build=$1
cd "$(dirname "$0")/../.." || exit 1
breaches=0
breach() {
    printf '%s\n' "$*"
    breaches=$((breaches + 1))
}
files() { git ls-files -co --exclude-standard -- "$@"; }

# Format.
while read -r f; do
    clang-format-14 --dry-run -Werror "$f" >/dev/null 2>&1 || breach "$f: not formatted: clang-format-14 -i $f"
done < <(files '*.c' '*.h')

# Layers: what each folder may include of ours. Line: folder, then allowed folders.
allowed() {
    case $1 in
    client/lib) echo "client/lib" ;;
    client/cli) echo "client/lib client/cli" ;;
    client/agent) echo "client/lib client/agent" ;;
    server/core) echo "client/lib server/core" ;;
    billing/core) echo "client/lib billing/core" ;;
    server/db) echo "client/lib server/core billing/core server/db sql" ;;
    server/issuer) echo "client/lib server/core server/issuer" ;;
    server/flow) echo "client/lib server/core billing/core server/db server/issuer server/flow" ;;
    server/net) echo "client/lib server/core billing/core server/db server/issuer server/flow server/net" ;;
    server/sim) echo "client/lib server/core server/sim" ;;
    server | billing) echo "client/lib server/core billing/core server/db server/issuer server/flow server/net server/sim server billing" ;;
    *) echo "" ;;
    esac
}
while read -r f; do
    dir=$(dirname "$f")
    ok=$(allowed "$dir")
    [ -n "$ok" ] || continue
    while read -r inc; do
        idir=$(dirname "$inc")
        case " $ok " in *" $idir "*) ;; *) breach "$f: includes \"$inc\": $dir may include only: $ok" ;; esac
    done < <(sed -n 's/^#include "\([^"]*\)".*/\1/p' "$f" | grep / )
done < <(files 'client/*.[ch]' 'server/*.[ch]' 'billing/*.[ch]')

# Purity: no libevent, libpq, clock, environment, file or log symbol in the pure archives.
# xalloc may say on stderr that memory is out before it aborts.
impure='^(event_|evbuffer_|evconn|bufferevent_|evtimer|PQ|curl_|clock_gettime|clock_now_us|clock_boot_us|time|gettimeofday|localtime|localtime_r|getenv|secure_getenv|setenv|fopen|fopen64|open|open64|openat|read|write|printf|puts|putchar|fprintf|__printf_chk|__fprintf_chk|fputs|stderr|stdout|syslog|log_at|socket|connect|fork|execve|random|rand|getrandom|RAND_bytes|digest_random)$'
for lib in client/lib/libng_pure.a server/core/libcore.a billing/core/libbillcore.a; do
    [ -e "$build/$lib" ] || { breach "$lib: not built, so its purity is unknown"; continue; }
    bad=$(nm -A -u "$build/$lib" 2>/dev/null | awk '{split($1, p, ":"); print p[2], $NF}' | sed 's/@.*//' |
        awk -v re="$impure" '$1 !~ /xalloc/ && $2 ~ re {print $1": "$2}')
    [ -z "$bad" ] || breach "$lib: impure symbols: $(tr '\n' ' ' <<<"$bad")"
done

# Banned calls, and length.
while read -r hit; do
    breach "$hit: banned call"
done < <(files '*.c' '*.h' | xargs grep -nE '(^|[^_[:alnum:]>.])(sprintf|vsprintf|strcpy|strcat|gets|system|popen|atoi|atol|atof|strtok|usleep|sleep|alloca)\(' | grep -vE '^\S+:\s*(/?\*|//)')
while read -r n f; do
    [ "$f" = total ] || [ "$n" -le 800 ] || breach "$f: $n lines: over 800, look for the second idea in it"
done < <(files '*.c' '*.h' '*.sql' | xargs wc -l)
while read -r place; do
    breach "$place"
done < <(files '*.c' | xargs awk '
    FNR == 1 {start = 0}
    /^\{/ {start = FNR}
    /^\}/ {if (start && FNR - start > 72) printf "%s:%d: function of %d lines: over 70\n", FILENAME, start, FNR - start - 1; start = 0}')
while read -r hit; do
    breach "$hit: left-over mark"
done < <(files '*.c' '*.h' '*.sql' '*.sh' dev | grep -v tests/lint/ | xargs grep -nE '\b(TODO|FIXME|XXX|HACK)\b|not implemented' | grep -vE "[\"']XXX[\"']" | cut -c1-120) # XXX in quotes is ISO 4217's "no currency"

# Shell.
while read -r f; do
    bash -n "$f" || breach "$f: does not parse"
done < <(files '*.sh' dev .ci/run)

# Documents against options: every command and option of the programs is in its man page,
# every CLI verb in docs/; the sample configurations are what the programs print.
tests/lint/docs.sh "$build" || breaches=$((breaches + 1))

[ "$breaches" = 0 ] || { echo "lint: $breaches breaches"; exit 1; }
echo "lint: clean"
