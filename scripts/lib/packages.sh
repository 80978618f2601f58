# shellcheck shell=bash
# What the system itself has to provide: compilers and, on Debian and Ubuntu, PostgreSQL.

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

has_libclang() { compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null || compgen -G '/usr/lib*/libclang*.so*' >/dev/null; }
has_openssl_headers() { [ -e /usr/include/openssl/ssl.h ]; }
has_venv() { python3 -c 'import ensurepip, venv' 2>/dev/null; }

# Prints the Debian names of the tools that are missing, tested by what they provide: other systems name them differently.
missing_tools() {
    local tool
    for tool in gcc make pkg-config clang python3 flock:util-linux; do
        command -v "${tool%%:*}" >/dev/null || echo "${tool##*:}"
    done
    [ -e /etc/ssl/certs/ca-certificates.crt ] || [ -e /etc/pki/tls/certs/ca-bundle.crt ] || echo ca-certificates
    has_libclang || echo libclang-dev
    has_venv || echo python3-venv
    [ "$(pgrx_version)" = "$PGRX_VERSION" ] || has_openssl_headers || echo libssl-dev
    if [ "$(id -u)" = 0 ]; then
        # cargo pgrx test starts its server through sudo, as a user who is not root.
        command -v sudo >/dev/null || echo sudo
    fi
}

# True if this major's server is, or can be, a package of the distribution.
apt_offers() { apt-cache show "postgresql-server-dev-$1" >/dev/null 2>&1; }

server_packages() {
    [ -x "/usr/lib/postgresql/$1/bin/postgres" ] || echo "postgresql-$1"
    [ -d "/usr/include/postgresql/$1/server" ] || echo "postgresql-server-dev-$1"
}

# A server package creates and starts a cluster unless told otherwise. An existing file is the administrator's: leave it.
forbid_main_cluster() {
    [ ! -e /etc/postgresql-common/createcluster.conf ] || return 0
    as_root mkdir -p /etc/postgresql-common
    echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
}

apt_install() {
    [ $# -gt 0 ] || return 0
    say "installing packages: $*"
    case " $* " in *" postgresql-"*) forbid_main_cluster ;; esac
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

install_tools() {
    local missing
    mapfile -t missing < <(missing_tools)
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "please install (Debian's names): ${missing[*]}"
    apt_install "${missing[@]}"
}

require_rust() {
    command -v cargo >/dev/null || die "no cargo: install Rust first, see https://rustup.rs"
    local component
    for component in fmt clippy; do
        command -v "cargo-$component" >/dev/null || die "no cargo $component: run 'rustup component add rustfmt clippy'"
    done
}

# cargo pgrx has to be of the very version of the pgrx crates.
install_cargo_pgrx() {
    [ "$(pgrx_version)" != "$PGRX_VERSION" ] || return 0
    say "installing cargo-pgrx $PGRX_VERSION (about 5 minutes on 2 cores)"
    cargo install cargo-pgrx --version "$PGRX_VERSION" --locked --root "$BACKFILL_CACHE/cargo-pgrx" \
        --target-dir "$BACKFILL_CACHE/cargo-pgrx/target"
    rm -rf "$BACKFILL_CACHE/cargo-pgrx/target"
    PATH=$BACKFILL_CACHE/cargo-pgrx/bin:$PATH
}

install_venv() {
    local wanted=$ROOT/scripts/requirements.txt
    cmp -s "$wanted" "$VENV/requirements.txt" && return 0
    say "preparing Python packages in $VENV"
    [ -x "$VENV/bin/python" ] || python3 -m venv "$VENV"
    "$VENV/bin/pip" install --quiet --disable-pip-version-check -r "$wanted"
    cp "$wanted" "$VENV/requirements.txt"
}
