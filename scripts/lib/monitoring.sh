# shellcheck shell=bash
# Prometheus, promtool and two exporters: what tests/cluster/test_monitoring*.py run. Optional: without them these tests skip.

# Unpacked into the cache and not installed: a package would start its daemon.
MONITORING=$BACKFILL_CACHE/monitoring
MONITORING_PACKAGES="prometheus prometheus-postgres-exporter prometheus-sql-exporter"

# Tried once a day at most where they cannot be had, so that a machine without network does not wait for them each time.
prepare_monitoring() {
    local package
    if [ -e "$MONITORING/.ready" ] || [ -n "$(find "$MONITORING/.tried" -mmin -1440 2>/dev/null)" ]; then return 0; fi
    if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then return 0; fi
    say "fetching the monitoring tools into $MONITORING"
    rm -rf "$MONITORING"
    mkdir -p "$MONITORING"
    touch "$MONITORING/.tried"
    # shellcheck disable=SC2086 # one package a word
    apt-cache show $MONITORING_PACKAGES >/dev/null 2>&1 || as_root apt-get update -qq || true
    # From Debian 13 on promtool is a package of its own.
    for package in $MONITORING_PACKAGES $(apt-cache pkgnames promtool); do
        if ! (cd "$MONITORING" && apt-get download -qq "$package" >/dev/null 2>&1 && dpkg-deb -x "$package"_*.deb .); then
            say "no $package to be had: its tests will be skipped"
            return 0
        fi
    done
    rm -f "$MONITORING"/*.deb
    touch "$MONITORING/.ready"
}
