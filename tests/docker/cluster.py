"""The cluster of docker/compose.yml as a test's own: its project, ports, and its end whatever happens to the test.

What is true of a node is asked of its PostgreSQL, inside its container: pgbaton is not believed about itself.
"""

import concurrent.futures
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request

from images import ROOT
from lab import free_port
from waiting import Failure

NODES = ["node1", "node2", "node3"]
PASSWORD = "not-the-default"

# Of one node: whether it is a standby, and who streams from it, or what it streams from.
STATE = """
SELECT CASE WHEN pg_is_in_recovery()
    THEN 'standby ' || coalesce((SELECT status || ' from ' || sender_host FROM pg_stat_wal_receiver), 'alone')
    ELSE 'primary ' || coalesce((SELECT string_agg(application_name, ',' ORDER BY application_name)
                                 FROM pg_stat_replication WHERE state = 'streaming'), '') END
"""


class Cluster:
    def __init__(self, compose, tag, keep=False):
        self.keep = keep
        self.project = f"pgbaton-test-{os.getpid()}"
        self.ports = {"pgbaton": free_port(), "admin": free_port(), "example": free_port()}
        self.command = [*compose, "-p", self.project, "-f", str(ROOT / "docker/compose.yml"), "--profile", "example",
                        "--progress", "quiet"]
        inherited = {name: value for name, value in os.environ.items()
                     if not name.startswith(("PG", "COMPOSE_")) and name != "DATABASE_URL"}
        self.environment = inherited | {
            "PGBATON_TAG": tag, "PGBATON_PORT": str(self.ports["pgbaton"]), "PGBATON_ADMIN_PORT": str(self.ports["admin"]),
            "PGBATON_EXAMPLE_PORT": str(self.ports["example"]), "PGBATON_DEMO_PASSWORD": PASSWORD,
        }
        self.end = None
        self.threads = concurrent.futures.ThreadPoolExecutor(len(NODES))

    def __enter__(self):
        # A shell that waits for our end, however we end: then it takes everything down. A stopped container cannot be
        # paused, so none is in the way.
        down = [*self.command, "down", "--volumes", "--remove-orphans", "--timeout", "5"]
        script = 'cat >/dev/null; ' + ("exit 0" if self.keep else '"$@"')
        self.end = subprocess.Popen(["sh", "-c", script, "sh", *down], env=self.environment, stdin=subprocess.PIPE,
                                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        return self

    def __exit__(self, *_):
        self.end.stdin.close()
        self.end.wait()
        self.threads.shutdown()
        if self.keep:
            print(f"kept: PGPASSWORD={PASSWORD} psql -h 127.0.0.1 -p {self.ports['pgbaton']} -U demo\n"
                  f"remove it with: {' '.join(self.command)} down --volumes")

    def left(self):
        """Names of what is still there."""
        if self.keep:
            return []
        label = f"label=com.docker.compose.project={self.project}"
        names = []
        for what in (["ps", "-a"], ["volume", "ls"], ["network", "ls"]):
            names += _run(["docker", *what, "-q", "--filter", label]).split()
        return names

    # --- Docker --------------------------------------------------------------------------------------------------------

    def compose(self, *arguments, check=True):
        got = subprocess.run([*self.command, *arguments], env=self.environment, capture_output=True, text=True,
                             stdin=subprocess.DEVNULL)
        if check and got.returncode != 0:
            raise Failure(f"docker compose {' '.join(arguments)}: {got.stderr.strip() or got.stdout.strip()}")
        return got.stdout

    def up(self, *services):
        services = services or (*NODES, "pgbaton", "demo-role")
        self.compose("up", "--detach", "--no-build", "--pull", "never", *services)

    def container(self, service):
        """Its name, which Compose puts together in this way."""
        return f"{self.project}-{service}-1"

    def inspect(self, service, what):
        return _run(["docker", "inspect", "-f", what, self.container(service)]).strip()

    def inspect_all(self):
        return _run(["docker", "inspect", *[self.container(service) for service in (*NODES, "pgbaton", "demo-role")]])

    def health(self, service):
        return self.inspect(service, "{{.State.Health.Status}}")

    def has_ended_well(self, service):
        return self.inspect(service, "{{.State.Status}} {{.State.ExitCode}}") == "exited 0"

    def published(self):
        for service in (*NODES, "pgbaton"):
            for addresses in json.loads(self.inspect(service, "{{json .NetworkSettings.Ports}}")).values():
                for address in addresses or []:
                    yield service, address["HostIp"]

    def logs(self, *services):
        return self.compose("logs", "--no-color", "--timestamps", *services, check=False)

    def run_in(self, service, script):
        got = subprocess.run(["docker", "exec", self.container(service), "bash", "-c", script], capture_output=True, text=True,
                             stdin=subprocess.DEVNULL)
        if got.returncode != 0:
            raise Failure(f"{service}: {script}: {got.stderr.strip()}")
        return got.stdout.strip()

    # --- PostgreSQL ------------------------------------------------------------------------------------------------------

    def node_sql(self, node, sql, database="postgres"):
        """What the node itself answers; None if it does not, soon."""
        # A frozen container takes no command: docker says so at once, and a server that stands still is given up.
        script = 'PGPASSWORD=$(</etc/pgbaton/secrets/superuser_password) exec psql -XAtq -v ON_ERROR_STOP=1 -h 127.0.0.1 -U postgres "$@"'
        try:
            got = subprocess.run(["docker", "exec", "-e", "PGCONNECT_TIMEOUT=3", self.container(node), "timeout", "20", "bash", "-c",
                                  script, "psql", "-d", database, "-c", sql],
                                 capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30)
        except subprocess.TimeoutExpired:
            return None
        return got.stdout.strip() if got.returncode == 0 else None

    def states(self):
        return dict(zip(NODES, self.threads.map(lambda node: self.node_sql(node, STATE), NODES)))

    def is_whole(self):
        """One primary, and all others stream from it, by what they say themselves; and pgbaton sees it so."""
        states = self.states()
        primaries = [node for node, state in states.items() if state and state.startswith("primary")]
        if len(primaries) != 1:
            return False
        others = [node for node in NODES if node != primaries[0]]
        streaming = states[primaries[0]].removeprefix("primary").strip().split(",")
        if len(streaming) != len(others) or not all((states[n] or "").startswith("standby streaming") for n in others):
            return False
        return self.primary() == primaries[0] and all(n["state"] == "running" for n in self.picture()["nodes"])

    def describe(self):
        try:
            seen = [{key: node.get(key) for key in ("id", "role", "state", "reason")} for node in self.picture()["nodes"]]
        except Failure as failure:
            seen = str(failure)
        return f"{self.states()}; pgbaton sees {seen}"

    def ids(self, node):
        """How often each id is in the ledger."""
        text = self.node_sql(node, "SELECT id, count(*) FROM ledger GROUP BY id", "demo")
        if text is None:
            return {}
        return {int(key): int(count) for key, count in (line.split("|") for line in text.splitlines())}

    # --- pgbaton -------------------------------------------------------------------------------------------------------------

    def url(self):
        return f"postgresql://demo:{PASSWORD}@127.0.0.1:{self.ports['pgbaton']}/demo"

    def psql(self, sql, database="demo"):
        got = subprocess.run(["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql, self.url().removesuffix("demo") + database],
                             capture_output=True, text=True, env=self.environment, timeout=90)
        if got.returncode != 0:
            raise Failure(f"psql: {got.stderr.strip()}")
        return got.stdout.strip()

    def console(self, command):
        return self.psql(command, "pgbaton")

    def picture(self):
        status, picture = self.admin("GET", "/cluster")
        if status != 200:
            raise Failure(f"GET /cluster is answered by {status}: {picture}")
        return picture

    def primary(self):
        return self.picture()["primary"]

    def admin(self, method, path, body=None):
        return self.http("admin", method, path, body)

    def endpoint(self, service):
        return f"http://127.0.0.1:{self.ports[service]}"

    def http(self, service, method, path, body=None, key=None):
        return request(self.endpoint(service) + path, method, body, key, 90)


def request(url, method, body, key, seconds):
    """Status and the JSON that was answered; (0, why) if nothing was."""
    headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=seconds) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except (OSError, ValueError) as error:
        return 0, str(error)


def _run(command):
    got = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if got.returncode != 0:
        print(f"   {' '.join(command[:3])}: {got.stderr.strip()}", file=sys.stderr)
    return got.stdout
