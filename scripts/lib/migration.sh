# shellcheck shell=bash
# The migration tools of docs/migration-tools.md, which tests/cluster/test_migration_tools.py runs. Optional: without them
# these tests skip.

MIGRATION=$BACKFILL_CACHE/migration
MIGRATION_PYTHON="alembic==1.20.1 django==5.2.19 sqlalchemy==2.1.9 psycopg[binary]==3.3.9"
MIGRATION_NODE="dbmate@2.36.0 node-pg-migrate@9.0.0 pg@8.23.1"

# The packages that sqitch needs, of those that have a file to fetch; not the drivers of other databases.
sqitch_packages() {
    local package
    apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances \
        sqitch libdbd-pg-perl | grep -E '^lib.*-perl$' | grep -vE 'dbd-(mysql|firebird|odbc|sqlite)' | sort -u |
        xargs apt-cache policy | awk '/^[^ ]/ { name = $1 } /Candidate: [0-9]/ { sub(":", "", name); print name }'
}

fetch_migration_python() {
    # shellcheck disable=SC2086 # one package a word
    python3 -m venv "$MIGRATION/python" && "$MIGRATION/python/bin/pip" install --quiet --disable-pip-version-check $MIGRATION_PYTHON
}

fetch_migration_node() {
    command -v npm >/dev/null || return 1
    mkdir -p "$MIGRATION/node"
    # shellcheck disable=SC2086 # one package a word
    (cd "$MIGRATION/node" && npm install --silent --no-audit --no-fund --prefix . $MIGRATION_NODE >/dev/null)
}

# Unpacked and not installed, as the monitoring tools are.
fetch_sqitch() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    apt-cache show sqitch >/dev/null 2>&1 || as_root apt-get update -qq || true
    mkdir -p "$MIGRATION/sqitch"
    # shellcheck disable=SC2046 # one package a word
    (
        cd "$MIGRATION/sqitch" && apt-get download -qq sqitch libdbd-pg-perl $(sqitch_packages) >/dev/null 2>&1 || exit 1
        for package in *.deb; do dpkg-deb -x "$package" . || exit 1; done
        rm -f ./*.deb
    )
}

# Tried once a day at most where they cannot be had, so that a machine without network does not wait for them each time.
prepare_migration() {
    local kind
    mkdir -p "$MIGRATION"
    for kind in migration_python migration_node sqitch; do
        if [ -e "$MIGRATION/.$kind.ready" ] || [ -n "$(find "$MIGRATION/.$kind.tried" -mmin -1440 2>/dev/null)" ]; then continue; fi
        say "fetching migration tools into $MIGRATION: ${kind#migration_}"
        touch "$MIGRATION/.$kind.tried"
        if "fetch_$kind"; then
            touch "$MIGRATION/.$kind.ready"
        else
            rm -rf "${MIGRATION:?}/${kind#migration_}"
            say "not to be had: its tests will be skipped"
        fi
    done
}
