#!/usr/bin/env bash
# Installs what pgbaton's demo, tests and benchmarks need on this machine. Run it as often as you like: what is there
# already is left alone, and nothing is done quietly that fails.
#
#   ./setup.sh demo     PostgreSQL server and client
#   ./setup.sh test     that, and what the drivers and the conformance suite need (the default)
#   ./setup.sh bench    that of demo, and PgBouncer and HAProxy to compare with
set -euo pipefail

goal=${1:-test}
case "$goal" in
demo | test | bench) ;;
*)
    echo "usage: $0 [demo|test|bench]" >&2
    exit 2
    ;;
esac

say() { echo "setup: $*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

# --- what is there ---------------------------------------------------------------------------------------------------

# The directories that `pgbaton demo` looks in too.
bin_dirs() {
    if [ -n "${PGBATON_PG_BIN:-}" ]; then
        echo "$PGBATON_PG_BIN"
        return
    fi
    pg_config --bindir 2>/dev/null || true
    printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql@*/bin \
        /usr/local/opt/postgresql@*/bin /usr/local/pgsql/bin | sort -rV
    dirname "$(command -v postgres 2>/dev/null || echo /nonexistent/postgres)"
}

# The major version of the server to be used: that of the first directory that has all programs, if it is 14 or newer.
server_version() {
    local dir version
    while read -r dir; do
        [ -x "$dir/postgres" ] && [ -x "$dir/initdb" ] && [ -x "$dir/pg_basebackup" ] && [ -x "$dir/psql" ] || continue
        version=$("$dir/postgres" --version | sed -n 's/.*(PostgreSQL) \([0-9]*\).*/\1/p')
        if [ "${version:-0}" -ge 14 ]; then
            echo "$version"
            return
        fi
    done < <(bin_dirs)
    return 1
}

has_server() { server_version >/dev/null; }
has_rust() { have cargo; }
# pg_regress and the server's headers: Debian has the one in the server's own package, the others in the development package.
has_server_dev() {
    local version
    version=$(server_version) || return 1
    [ -e "/usr/include/postgresql/$version/server/postgres.h" ] ||
        [ -e "$(pg_config --includedir-server 2>/dev/null || echo /nonexistent)/postgres.h" ] || return 1
    [ -x "/usr/lib/postgresql/$version/lib/pgxs/src/test/regress/pg_regress" ] ||
        [ -x "$(dirname "$(pg_config --pgxs 2>/dev/null || echo /nonexistent)")/../test/regress/pg_regress" ]
}
has_build_tools() { have cc && have make; }
# PostgreSQL's grammar is C; its bindings are made with libclang when pgbaton is built.
has_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] || compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null ||
        compgen -G '/usr/lib/*/libclang*.so*' >/dev/null || compgen -G '/usr/lib*/libclang.so*' >/dev/null ||
        have clang
}
has_libpq() { have pg_config && [ -e "$(pg_config --includedir)/libpq-fe.h" ]; }
has_python() { have python3 && python3 -c 'import ensurepip, venv' 2>/dev/null; }
# Debian's modules are for Debian's Python, which need not be the first one in PATH.
python_imports() { python3 -c "import $1" 2>/dev/null || /usr/bin/python3 -c "import $1" 2>/dev/null; }
has_psycopg() { python_imports psycopg; }
has_asyncpg() { python_imports asyncpg; }
has_java() { have javac; }
has_pgjdbc() { [ -e /usr/share/java/postgresql.jar ]; }
has_node() { have node; }
# Debian's package goes with Debian's Node.js only; beside another one, npm is the way.
has_node_pg() { [ -e /usr/share/nodejs/pg/package.json ] || have npm; }
has_go() { have go; }
has_pq() { [ -e /usr/share/gocode/src/github.com/lib/pq ]; }
# Where no engine answers, the suite that needs these is skipped, whatever else is there.
has_docker() { have docker && docker version >/dev/null 2>&1; }
has_prometheus() { have prometheus && have promtool; }
has_pgbouncer_exporter() { [ -x /usr/bin/prometheus-pgbouncer-exporter ]; }
has_debootstrap() { PATH="$PATH:/usr/sbin:/sbin" have debootstrap || docker image inspect debian:trixie-slim >/dev/null 2>&1; }
# Debian has it as chromium; the suite also takes one of another name.
has_browser() { { have chromium || have chromium-browser || have google-chrome; } && have chromedriver; }
has_pgbouncer() { have pgbouncer; }
has_haproxy() { have haproxy; }

# --- what to do about it ---------------------------------------------------------------------------------------------

# The Debian packages for each need.
packages_for() {
    case "$1" in
    server) echo postgresql postgresql-client ;;
    server_dev) echo "postgresql-server-dev-$(server_version)" ;;
    build_tools) echo build-essential ;;
    libclang) echo libclang-dev ;;
    libpq) echo libpq-dev ;;
    python) echo python3 python3-venv python3-pip ;;
    psycopg) echo python3-psycopg ;;
    asyncpg) echo python3-asyncpg ;;
    java) echo default-jdk-headless ;;
    pgjdbc) echo libpostgresql-jdbc-java ;;
    node) echo nodejs npm ;;
    node_pg) echo node-pg ;;
    go) echo golang-go ;;
    pq) echo golang-github-lib-pq-dev ;;
    prometheus) echo prometheus ;;
    pgbouncer_exporter) echo prometheus-pgbouncer-exporter ;;
    debootstrap) echo debootstrap ;;
    browser) echo chromium chromium-driver ;;
    pgbouncer) echo pgbouncer ;;
    haproxy) echo haproxy ;;
    esac
}

as_root=()
can_install() {
    have apt-get || return 1
    [ "$(id -u)" -eq 0 ] && return 0
    have sudo || return 1
    as_root=(sudo)
}

# Debian starts a service as soon as it is installed: a cluster on 5432, PgBouncer on the very port of our demo. Neither
# is wanted; what was there before is not touched.
block_services() {
    local conf=/etc/postgresql-common/createcluster.conf
    if ! dpkg -s postgresql-common >/dev/null 2>&1 && [ ! -e "$conf" ]; then
        "${as_root[@]}" mkdir -p "$(dirname "$conf")"
        echo "create_main_cluster = false" | "${as_root[@]}" tee "$conf" >/dev/null
    fi
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee /usr/sbin/policy-rc.d >/dev/null
        "${as_root[@]}" chmod 755 /usr/sbin/policy-rc.d
        trap '"${as_root[@]}" rm -f /usr/sbin/policy-rc.d' EXIT
    fi
}

apt_is_fresh=no
# Quiet when it works; the whole of what apt said when it does not.
apt_install() {
    local log
    if [ "$apt_is_fresh" = no ]; then
        block_services
        "${as_root[@]}" apt-get -qq update >&2 || say "apt-get update failed; trying with the lists there are"
        apt_is_fresh=yes
    fi
    log=$(mktemp)
    if "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive UCF_FORCE_CONFFOLD=1 \
        apt-get -q -y --no-install-recommends -o Dpkg::Options::=--force-confold install "$@" >"$log" 2>&1; then
        rm -f "$log"
        return 0
    fi
    cat "$log" >&2
    rm -f "$log"
    return 1
}

missing=()
# need <required|driver> <name> <what for>
need() {
    local kind=$1 name=$2 reason=$3 packages
    "has_$name" && return
    packages=$(packages_for "$name")
    if can_install; then
        say "installing $packages ($reason)"
        # shellcheck disable=SC2086 # several packages
        apt_install $packages && "has_$name" && return
    fi
    if [ "$kind" = driver ]; then
        say "no $name, so its suite may be skipped by name; it would need: $packages"
    else
        missing+=("$packages   # $reason")
    fi
}

# The same for what is installed for its program only: its service does not start with the machine.
need_program() {
    local name=$2
    "has_$name" && return
    need "$@"
    if "has_$name" && have systemctl; then
        "${as_root[@]}" systemctl --quiet disable "$name" || say "could not disable the $name service"
    fi
}

if [ -n "${PGBATON_PG_BIN:-}" ] && ! has_server; then
    say "PGBATON_PG_BIN is $PGBATON_PG_BIN, where there is no PostgreSQL 14 or newer (postgres, initdb, pg_basebackup, psql)"
    exit 1
fi

has_rust || missing+=("Rust 1.89 or newer, from https://rustup.rs   # to build pgbaton")
need required server "PostgreSQL 14 or newer, server and client"
need required build_tools "a C compiler, to build pgbaton"
need required libclang "libclang, to build pgbaton's reading of SQL"

if [ "$goal" = test ] && [ ${#missing[@]} -eq 0 ]; then
    need required python "the test scripts"
    need required libpq "the drivers that use libpq"
    need required server_dev "pg_regress, for the conformance suite"
    for driver in psycopg asyncpg java pgjdbc node node_pg go pq; do
        need driver "$driver" "driver suite"
    done
    need driver browser "the dashboard, in a real browser"
    need driver prometheus "the metrics in a real Prometheus"
    need driver pgbouncer_exporter "the console as PgBouncer's exporters know it"
    need_program driver haproxy "the suite of load balancers"
    has_docker && need driver debootstrap "the containers' base image, where no registry can be reached"
fi

if [ "$goal" = bench ]; then
    for rival in pgbouncer haproxy; do
        need_program required "$rival" "to compare with"
    done
fi

if [ ${#missing[@]} -gt 0 ]; then
    say "this machine lacks something that could not be installed from here. Please install:"
    printf '  %s\n' "${missing[@]}" >&2
    have apt-get && ! can_install && say "on Debian: run this as root, or install sudo"
    exit 1
fi
