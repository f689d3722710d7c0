"""The throw-away machines of the script-driven tests: PostgreSQL, PgBouncer, HAProxy and pgbaton on free loopback ports.

`tests/conformance`, `tests/drivers` and `tests/bench` all need the same thing: start a server as an unprivileged user,
wait until it answers, and have nothing left when the script ends, however it ends. That is all this file knows.
Only Python's standard library is used, so that the scripts run wherever PostgreSQL does.
"""

import ctypes
import os
import pathlib
import pwd
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


class LabError(Exception):
    """Something the person at the terminal has to put right; shown without a traceback."""


def free_port():
    """A loopback port nobody listens on, below the range the kernel hands to outgoing connections.

    A port from the ephemeral range can be taken by any connection between the choice and the bind.
    """
    low = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(1000):
        port = 10000 + int.from_bytes(os.urandom(3), "big") % max(1, low - 10000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            if port not in _handed_out:
                _handed_out.add(port)
                return port
    raise LabError("no free loopback port found")


_handed_out = set()


def find_pg_bin():
    """PostgreSQL's server binaries: PGBATON_PG_BIN, then pg_config, then the newest of the usual folders."""
    places = [os.environ.get("PGBATON_PG_BIN")]
    if shutil.which("pg_config"):
        places.append(subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True).stdout.strip())
    versions = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: -float(p.parent.name))
    places += [str(p) for p in versions]
    for place in places:
        if place and os.access(os.path.join(place, "initdb"), os.X_OK):
            return pathlib.Path(place)
    raise LabError("PostgreSQL's server binaries were not found; set PGBATON_PG_BIN to the folder that holds initdb")


_libc = ctypes.CDLL(None)


def _die_with_parent():
    # The servers must not survive a script that was killed outright. PR_SET_PDEATHSIG = 1; SIGINT is PostgreSQL's
    # fast shutdown, and ends the others too.
    _libc.prctl(1, signal.SIGINT)


class Lab:
    """A scratch folder and the processes started in it. Use with `with`; leaving it stops and removes everything."""

    def __init__(self, name, keep=False, pg_bin=None):
        self.keep = keep
        self.processes = []
        self.pg_bin = pg_bin or find_pg_bin()
        self.user = self._unprivileged_user()
        # Unix socket paths may have 107 bytes, so the folder is short and near the root. It lies outside the checkout
        # because the unprivileged user may not be allowed to enter that.
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix=f"pgbaton-{name}-", dir=os.environ.get("TMPDIR", "/tmp")))
        self.dir.chmod(0o755)
        if self.user:
            os.chown(self.dir, self.user.pw_uid, self.user.pw_gid)

    @staticmethod
    def _unprivileged_user():
        """None when we are unprivileged ourselves."""
        if os.geteuid() != 0:
            return None
        for name in (os.environ.get("PGBATON_PG_USER"), "postgres", "nobody"):
            try:
                if name:
                    return pwd.getpwnam(name)
            except KeyError:
                continue
        raise LabError("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")

    def __enter__(self):
        # Proxies with thousands of clients need as many files as we may have.
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            self.stop(process)
        if self.keep:
            print(f"kept: {self.dir}")
        else:
            shutil.rmtree(self.dir, ignore_errors=True)

    def unprivileged(self):
        """Keyword arguments for subprocess that make the child run as the unprivileged user."""
        if not self.user:
            return {}
        return {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}

    def give(self, path):
        """Hands a file or folder (with all that is in it) to the unprivileged user."""
        if self.user:
            for entry in [path, *pathlib.Path(path).rglob("*")]:
                os.chown(entry, self.user.pw_uid, self.user.pw_gid, follow_symlinks=False)
        return path

    def environment(self, **extra):
        """Ours, without the PG* variables that would change what is being tested."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("PG") or k.startswith("PGBATON")}
        env["PATH"] = f"{self.pg_bin}:{env.get('PATH', '')}"
        env["HOME"] = str(self.dir)
        env["LC_ALL"] = "C"
        return env | extra

    def run(self, command, check=True, **options):
        """Runs a command to its end as the unprivileged user and returns its standard output."""
        options = {"env": self.environment(), "cwd": self.dir} | self.unprivileged() | options
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
        if check and done.returncode != 0:
            raise LabError(f"{command[0]} failed ({done.returncode}):\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        return done.stdout

    def start(self, name, command, privileged=False, stop_signal=signal.SIGTERM, **options):
        """Starts a server; its output goes to `<name>.log`. `stop` and leaving the lab end it."""
        log = self.dir / f"{name}.log"
        options = {"env": self.environment(), "cwd": self.dir} | ({} if privileged else self.unprivileged()) | options
        with open(log, "ab") as out:
            process = subprocess.Popen(
                [str(c) for c in command], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True, preexec_fn=_die_with_parent, **options,
            )
        process.lab_name, process.lab_log, process.lab_signal = name, log, stop_signal
        self.processes.append(process)
        return process

    def stop(self, process):
        if process in self.processes:
            self.processes.remove(process)
        if process.poll() is not None:
            return
        process.send_signal(process.lab_signal)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def wait_for_port(self, process, port, seconds=30):
        """Returns once something accepts connections on the port; says what the log said if the process ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        tail = process.lab_log.read_text(errors="replace")[-4000:]
        raise LabError(f"{process.lab_name} did not come up on port {port}; the end of its log:\n{tail}")


class Postgres:
    """One PostgreSQL server of its own, superuser `postgres`."""

    def __init__(self, lab, name="postgres", settings=(), initdb=(), hba=None, password=None, port=None):
        self.lab, self.name, self.port = lab, name, port or free_port()
        self.data = lab.dir / name
        arguments = [lab.pg_bin / "initdb", "-D", self.data, "-U", "postgres", "--no-sync", *initdb]
        if password:
            secret = lab.dir / f"{name}.password"
            secret.write_text(password + "\n")
            secret.chmod(0o600)
            lab.give(secret)
            arguments += [f"--pwfile={secret}", "--auth=scram-sha-256"]
        else:
            arguments += ["--auth=trust"]
        lab.run(arguments)
        lines = [
            f"port = {self.port}", "listen_addresses = '127.0.0.1'", f"unix_socket_directories = '{lab.dir}'",
            "fsync = off", "full_page_writes = off", "log_destination = stderr", *settings,
        ]
        with open(self.data / "postgresql.conf", "a") as conf:
            conf.write("\n".join(lines) + "\n")
        if hba is not None:
            (self.data / "pg_hba.conf").write_text(hba)
        self.process = None
        self.start()

    def start(self):
        self.process = self.lab.start(
            self.name, [self.lab.pg_bin / "postgres", "-D", self.data], stop_signal=signal.SIGINT
        )
        deadline = time.monotonic() + 60
        command = [self.lab.pg_bin / "pg_isready", "-q", "-h", self.lab.dir, "-p", str(self.port)]
        while subprocess.run([str(c) for c in command], env=self.lab.environment()).returncode != 0:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"PostgreSQL did not start:\n{self.process.lab_log.read_text()[-4000:]}")
            time.sleep(0.05)

    def stop(self):
        self.lab.stop(self.process)

    def standby(self, name, password=None):
        """A standby that streams from this server; `password` is the superuser's, if it has one."""
        other = Postgres.__new__(Postgres)
        other.lab, other.name, other.port, other.data = self.lab, name, free_port(), self.lab.dir / name
        # The Unix socket is trusted whatever the rules for TCP are.
        self.lab.run([
            self.lab.pg_bin / "pg_basebackup", "-D", other.data, "-R", "-X", "stream", "--checkpoint=fast", "--no-sync",
            "-h", self.lab.dir, "-p", str(self.port), "-U", "postgres",
        ], env=self.lab.environment(**({"PGPASSWORD": password} if password else {})))
        with open(other.data / "postgresql.conf", "a") as conf:
            conf.write(f"port = {other.port}\n")
        other.process = None
        other.start()
        return other

    def psql(self, sql, database="postgres", **env):
        """Runs SQL as the superuser over the Unix socket; fails on the first error."""
        command = [
            self.lab.pg_bin / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", self.lab.dir, "-p", self.port,
            "-U", "postgres", "-d", database, "-c", sql,
        ]
        return self.lab.run(command, env=self.lab.environment(**env)).strip()


def toml(value):
    """A TOML string. Our values hold no control characters, so JSON's escapes are TOML's."""
    import json
    return json.dumps(str(value), ensure_ascii=False)


def pgbaton_binary(profile="debug"):
    """PGBATON_BIN, or what cargo built in this checkout."""
    binary = pathlib.Path(os.environ.get("PGBATON_BIN") or ROOT / "target" / profile / "pgbaton").absolute()
    if not os.access(binary, os.X_OK):
        how = "cargo build --release" if profile == "release" else "cargo build"
        raise LabError(f"{binary} does not exist; run `{how}` first, or set PGBATON_BIN")
    return binary


def start_pgbaton(
    lab, node_port, profile="debug", name="pgbaton", pool_mode="transaction", pool_size=20, max_clients=10000,
    listen=(), tls=None, rules=(), control_password=None, control_user="postgres", node_host="127.0.0.1", workers=0, log_level="info",
    replicas=(), reads=None,
):
    """Starts `pgbaton serve` in front of one node, and replicas if ports of some are given, and returns (process, port)."""
    binary = pgbaton_binary(profile)
    port = free_port()
    addresses = ", ".join(toml(a) for a in [f"127.0.0.1:{port}", *listen])
    lines = [
        "[proxy]", f"listen = [{addresses}]", f"pool_mode = {toml(pool_mode)}", f"pool_size = {pool_size}",
        f"max_clients = {max_clients}", f"workers = {workers}", "[proxy.tls]",
    ]
    if tls:
        lines += [f"mode = {toml(tls.get('mode', 'allow'))}", f"cert = {toml(tls['cert'])}", f"key = {toml(tls['key'])}"]
    else:
        lines += ['mode = "disable"']
    lines += ["[auth]", 'method = "passthrough"']
    for rule in rules:
        lines += ["[[auth.rules]]", *(f"{key} = {toml(value)}" for key, value in rule.items())]
    lines += ["[cluster]", f"control_user = {toml(control_user)}", 'control_database = "postgres"']
    if control_password:
        secret = lab.dir / f"{name}-control.password"
        secret.write_text(control_password + "\n")
        secret.chmod(0o600)
        lines += [f"control_password_file = {toml(secret)}"]
    lines += [
        "[admin]", 'listen = ""', "[cluster.tls]", 'mode = "disable"',
        "[[cluster.nodes]]", 'id = "n1"', f"host = {toml(node_host)}", f"port = {node_port}",
    ]
    for number, replica in enumerate(replicas, 2):
        lines += ["[[cluster.nodes]]", f'id = "n{number}"', f"host = {toml(node_host)}", f"port = {replica}"]
    lines += ["[failover]", "automatic = false"]
    lines += ["[reads]", *(f"{key} = {toml(value)}" for key, value in (reads or {}).items())]
    lines += [
        "[log]", f'level = "{log_level}"',
    ]
    conf = lab.dir / f"{name}.toml"
    conf.write_text("\n".join(lines) + "\n")
    process = lab.start(name, [binary, "serve", "-c", conf], privileged=True)
    lab.wait_for_port(process, port)
    return process, port


def start_pgbouncer(lab, node_port, name="pgbouncer", pool_mode="transaction", pool_size=20, max_clients=10000,
                    users=None, tls=None, extra=()):
    """Starts PgBouncer in front of one node; `users` is {name: password} for SCRAM, None means anybody may enter."""
    binary = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
    if not binary:
        raise LabError("PgBouncer is not installed (package pgbouncer)")
    port = free_port()
    lines = [
        "[databases]", f"* = host=127.0.0.1 port={node_port}", "[pgbouncer]", "listen_addr = 127.0.0.1",
        f"listen_port = {port}", "unix_socket_dir =", f"pool_mode = {pool_mode}", f"default_pool_size = {pool_size}",
        f"max_client_conn = {max_clients}", "ignore_startup_parameters = extra_float_digits,options",
        "server_tls_sslmode = disable", "log_connections = 0", "log_disconnections = 0", *extra,
    ]
    users_file = lab.dir / f"{name}.users"
    if users is None:
        # With auth_type = any PgBouncer forgets who the client said it was, so trust needs every name in the file.
        lines += ["auth_type = trust", f"auth_file = {users_file}"]
        users_file.write_text('"postgres" ""\n')
    else:
        lines += ["auth_type = scram-sha-256", f"auth_file = {users_file}"]
        users_file.write_text("".join(f'"{user}" "{password}"\n' for user, password in users.items()))
    if tls:
        lines += ["client_tls_sslmode = allow", f"client_tls_cert_file = {tls['cert']}", f"client_tls_key_file = {tls['key']}"]
    conf = lab.dir / f"{name}.ini"
    conf.write_text("\n".join(lines) + "\n")
    lab.give(conf)
    lab.give(users_file)
    process = lab.start(name, [binary, conf], stop_signal=signal.SIGINT)
    lab.wait_for_port(process, port)
    return process, port


def start_haproxy(lab, node_port, name="haproxy", max_clients=10000):
    """Starts HAProxy in tcp mode in front of one node."""
    binary = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")
    if not binary:
        raise LabError("HAProxy is not installed (package haproxy)")
    port = free_port()
    conf = lab.dir / f"{name}.cfg"
    conf.write_text(f"""
global
    maxconn {max_clients}
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
frontend in
    bind 127.0.0.1:{port}
    default_backend node
backend node
    server n1 127.0.0.1:{node_port}
""")
    process = lab.start(name, [binary, "-db", "-f", conf], privileged=True)
    lab.wait_for_port(process, port)
    return process, port


def make_certificate(lab, name="proxy"):
    """A self-signed certificate for localhost; returns {"cert", "key"}. Both are readable by the unprivileged user."""
    cert, key, conf = lab.dir / f"{name}.crt", lab.dir / f"{name}.key", lab.dir / f"{name}.openssl"
    # Not an authority: rustls refuses one as a server's certificate, and clients can trust a leaf as well.
    conf.write_text(
        "[req]\ndistinguished_name = dn\nx509_extensions = v3\nprompt = no\n[dn]\nCN = localhost\n"
        "[v3]\nbasicConstraints = critical, CA:FALSE\nsubjectAltName = DNS:localhost, IP:127.0.0.1\n"
    )
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
         "-config", str(conf), "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )
    key.chmod(0o600)
    lab.give(key)
    lab.give(cert)
    return {"cert": cert, "key": key}
