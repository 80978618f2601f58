# shellcheck shell=bash
# What the system itself has to provide: compilers and, on Debian and Ubuntu, PostgreSQL.

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "this takes root, and there is no sudo: as root, run: $*"
    fi
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

# True if this major's server is, or can be, a package of the distribution. A fresh container has no lists of packages yet.
apt_offers() {
    apt-cache show postgresql-common >/dev/null 2>&1 || as_root apt-get update -qq || true
    apt-cache show "postgresql-server-dev-$1" >/dev/null 2>&1
}

server_packages() {
    [ -x "/usr/lib/postgresql/$1/bin/postgres" ] || echo "postgresql-$1"
    [ -d "/usr/include/postgresql/$1/server" ] || echo "postgresql-server-dev-$1"
}

apt_install() {
    [ $# -gt 0 ] || return 0
    say "installing packages: $*"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# A server package creates and starts a cluster unless told otherwise: told so for as long as it is installed, and no longer. A
# file that is there is the administrator's, and left alone.
CREATE_CLUSTER=/etc/postgresql-common/createcluster.conf
apt_install_server() {
    [ $# -gt 0 ] || return 0
    if [ -e "$CREATE_CLUSTER" ]; then
        apt_install "$@"
        return
    fi
    say "while the server is installed, $CREATE_CLUSTER says that no cluster is to be created; it is removed afterwards"
    as_root mkdir -p "${CREATE_CLUSTER%/*}"
    echo 'create_main_cluster = false' | as_root tee "$CREATE_CLUSTER" >/dev/null
    local failed=0
    # In a subshell, so that an error of the installation does not leave the file behind.
    (apt_install "$@") || failed=$?
    as_root rm -f "$CREATE_CLUSTER"
    return "$failed"
}

install_tools() {
    local missing
    mapfile -t missing < <(missing_tools)
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "please install (Debian's names): ${missing[*]}"
    apt_install "${missing[@]}"
}

# The least version is that of Cargo.toml. The newest of what a distribution has is often older.
require_rust() {
    local wanted found get
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml")
    get="curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y && . \"\$HOME/.cargo/env\""
    command -v cargo >/dev/null || die "Rust $wanted or later is needed, and there is none. To get it: $get"
    found=$(rustc --version 2>/dev/null | sed -n 's/^rustc \([0-9.]*\).*/\1/p')
    if [ "$(printf '%s\n' "$wanted" "${found:-0}" | sort -V | head -1)" != "$wanted" ]; then
        if command -v rustup >/dev/null; then get="rustup update stable && rustup default stable"; fi
        die "Rust $wanted or later is needed; $(command -v rustc || echo 'what is here') is ${found:-of no known version}. To get it: $get"
    fi
}

# What the lints need besides.
require_components() {
    local component
    for component in fmt clippy; do
        command -v "cargo-$component" >/dev/null || die "no cargo $component: run 'rustup component add rustfmt clippy'"
    done
}

# cargo pgrx has to be of the very version of the pgrx crates. It is compiled without optimisations, without debug information
# and without TLS, with which it could fetch servers: what it does here takes seconds either way.
install_cargo_pgrx() {
    [ "$(pgrx_version)" != "$PGRX_VERSION" ] || return 0
    say "compiling cargo-pgrx $PGRX_VERSION"
    CARGO_PROFILE_DEV_DEBUG=0 cargo install cargo-pgrx --version "$PGRX_VERSION" --locked --debug --no-default-features \
        --root "$BACKFILL_CACHE/cargo-pgrx" --target-dir "$BACKFILL_CACHE/cargo-pgrx/target"
    rm -rf "$BACKFILL_CACHE/cargo-pgrx/target"
    PATH=$BACKFILL_CACHE/cargo-pgrx/bin:$PATH
}

# What the file names, of those in scripts/; the larger one includes the other.
install_venv() {
    local wanted=$ROOT/scripts/$1
    cmp -s "$wanted" "$VENV/$1" && return 0
    say "preparing Python packages in $VENV"
    [ -x "$VENV/bin/python" ] || python3 -m venv "$VENV"
    "$VENV/bin/pip" install --quiet --disable-pip-version-check -r "$wanted"
    cp "$wanted" "$VENV/$1"
}
