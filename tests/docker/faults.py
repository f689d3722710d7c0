"""What is done to a node's container, and how that is taken back: only what power, kernels and networks do, never what would
help the cluster."""

import os
import signal

from waiting import wait_until


class Fault:
    """`begin` breaks a node, `end` lets its host be well again."""

    def __init__(self, name, begin, end, is_possible=lambda: True):
        self.name, self._begin, self._end, self.is_possible = name, begin, end, is_possible

    def begin(self, cluster, node):
        return self._begin(cluster, node)

    def end(self, cluster, node, handle):
        self._end(cluster, node, handle)


def _nothing(_cluster, _node, _handle):
    pass


def _network(cluster):
    return f"{cluster.project}_db"


def _docker(*arguments):
    from cluster import _run

    _run(["docker", *arguments])


def _disconnect(cluster, node):
    _docker("network", "disconnect", _network(cluster), cluster.container(node))


def _connect(cluster, node, _handle):
    # Compose gave it its service's name in that network; Docker alone does not know it.
    _docker("network", "connect", "--alias", node, _network(cluster), cluster.container(node))


def _pause(cluster, node):
    # The engine gives up when a process forks while it is being frozen.
    def is_paused():
        cluster.compose("pause", node, check=False)
        return cluster.inspect(node, "{{.State.Paused}}") == "true"
    wait_until(10, f"{node} is paused", is_paused)


def _crash(cluster, node):
    cluster.run_in(node, "kill -9 $(head -n 1 /var/lib/pgbaton/data/postmaster.pid)")


def _reset(cluster, node):
    # The kernel protects process 1 from everybody in its container, not from its host.
    os.kill(int(cluster.inspect(node, "{{.State.Pid}}")), signal.SIGKILL)


FAULTS = {fault.name: fault for fault in [
    # Everything in the container at once, as when the power fails; it is started again by hand.
    Fault("kill", lambda c, n: c.compose("kill", n), lambda c, n, _: c.compose("start", n)),
    # Everything stands still with its connections open, and wakes up with all its memories.
    Fault("pause", _pause, lambda c, n, _: c.compose("unpause", n)),
    # Packets vanish without a word, in both directions, and so does its name.
    Fault("disconnect", _disconnect, _connect),
    # The postmaster alone.
    Fault("crash", _crash, _nothing),
    # The agent and all else with it; the restart policy brings it back.
    Fault("reset", _reset, _nothing, is_possible=lambda: os.geteuid() == 0),
    # As when a host is rebooted: a clean stop, and it comes back.
    Fault("restart", lambda c, n: c.compose("restart", n), _nothing),
]}
