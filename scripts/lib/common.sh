# shellcheck shell=bash
# shellcheck disable=SC2034 # the scripts that source this use what is set here
# Sourced by every script here: where things are, and how a major is found.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
MAJORS="15 16 17 18"
PGRX_VERSION=0.18.1

# As root, servers run as the unprivileged user postgres, who has to be able to read the cache: never below /root.
if [ -z "${BACKFILL_CACHE:-}" ]; then
    if [ "$(id -u)" = 0 ]; then
        BACKFILL_CACHE=/var/cache/backfill
    else
        BACKFILL_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/backfill
    fi
fi
export BACKFILL_CACHE
VENV=$BACKFILL_CACHE/venv

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
# Runs a step of the set-up. Where the environment names a file for it, how many seconds it took goes there.
timed() {
    local step=$1 begun=$SECONDS
    shift
    "$@"
    [ -z "${BACKFILL_TIMES:-}" ] || echo "$step $((SECONDS - begun))" >>"$BACKFILL_TIMES"
}
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Prints the first words of the --version of cargo pgrx that would be run, or nothing.
pgrx_version() { cargo pgrx --version 2>/dev/null | sed -n 's/^cargo-pgrx //p'; }

pg_config_of() { echo "$BACKFILL_CACHE/pg/$1/bin/pg_config"; }

# True when the private copy of this major is there and answers.
have_major() { [ -x "$(pg_config_of "$1")" ] && [ -e "$BACKFILL_CACHE/pg/.ready-$1" ]; }

# The newest major that is prepared; else the newest that the system has; else the one that needs the least.
default_major() {
    local major
    for major in 18 17 16 15; do
        if have_major "$major"; then echo "$major" && return; fi
    done
    for major in 18 17 16 15; do
        if [ -x "/usr/lib/postgresql/$major/bin/pg_config" ]; then echo "$major" && return; fi
    done
    if command -v apt-cache >/dev/null; then
        # Without lists, as in a fresh container, apt knows of no package: then by the release's name.
        major=$({ apt-cache depends postgresql 2>/dev/null || true; } | sed -n 's/.*Depends: postgresql-\([0-9]*\)$/\1/p' | tail -1)
        case " $MAJORS " in *" ${major:-$(major_of_release)} "*) echo "${major:-$(major_of_release)}" && return ;; esac
    fi
    echo 16
}

# The major that the distribution's release has, of those whose lists may be missing; or "none".
major_of_release() {
    local codename
    codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release 2>/dev/null || true)
    case $codename in
        bookworm) echo 15 ;;
        noble) echo 16 ;;
        trixie | plucky) echo 17 ;;
        *) echo none ;;
    esac
}

# Sets what cargo and cargo pgrx need to build for one major, the same everywhere so that nothing is compiled twice.
use_major() {
    export PG=$1
    # One PGRX_HOME a major: the bindings of all majors are built again whenever this file changes.
    export PGRX_HOME=$BACKFILL_CACHE/pgrx/$1
    export CARGO_TARGET_DIR=$BACKFILL_CACHE/target
    # cargo pgrx would add a linker flag to `install` but not to `test`, and each change of flags recompiles everything.
    export CARGO_PGRX_DISABLE_GC_SECTIONS_WORKAROUND=1
}

if [ -x "$BACKFILL_CACHE/cargo-pgrx/bin/cargo-pgrx" ]; then
    PATH=$BACKFILL_CACHE/cargo-pgrx/bin:$PATH
elif [ "$(id -u)" = 0 ] || [ -n "${HOME:-}" ]; then
    PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
fi
export PATH

# Whoever installs into a private copy holds it alone until the script ends; the tests on servers hold it shared.
lock_server() {
    exec 8>>"$BACKFILL_CACHE/pg/.lock-$1"
    flock --nonblock 8 || { say "waiting for others who use PostgreSQL $1" && flock 8; }
}

# A server that still runs keeps the library that it has mapped: it gets a new file, not new bytes in the old one.
remove_extension() {
    local pg_config
    pg_config=$(pg_config_of "$1")
    rm -f "$("$pg_config" --pkglibdir)/backfill.so" "$("$pg_config" --sharedir)"/extension/backfill[-.]*
}
