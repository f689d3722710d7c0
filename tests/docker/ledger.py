"""Clients that write down what they sent and what they were told, and the judge of it, who asks only the servers.

The rules are those of src/drill/checker.rs: what was acknowledged is there once, what failed is not there, nothing is there
that nobody sent; of what is unknown, either may be true.
"""

import threading
import time
from dataclasses import dataclass, field

import psycopg

from waiting import wait_until

WRITERS = 8
# Each writer's ids are its own.
SESSION = 10_000_000
# As much as a small application: the machine also has to run four containers.
PAUSE_SECONDS = 0.02


@dataclass
class Write:
    id: int
    sent: float
    # "acknowledged", "failed SQLSTATE", "unknown SQLSTATE"
    outcome: str
    told: float


@dataclass
class Verdict:
    acknowledged: int = 0
    failed: dict = field(default_factory=dict)
    unknown: dict = field(default_factory=dict)
    lost: list = field(default_factory=list)
    phantoms: list = field(default_factory=list)
    doubled: list = field(default_factory=list)
    invented: list = field(default_factory=list)

    @property
    def wrong(self):
        return bool(self.lost or self.phantoms or self.doubled or self.invented)

    def __str__(self):
        text = f"{self.acknowledged} writes acknowledged, failed {self.failed or 0}, unknown {self.unknown or 0}"
        for name in ("lost", "phantoms", "doubled", "invented"):
            if ids := getattr(self, name):
                text += f", {name} {len(ids)}: {ids[:10]}"
        return text


def judge(writes, ids):
    """`ids`: how often a node holds each id."""
    verdict = Verdict(doubled=[key for key, count in ids.items() if count > 1])
    for write in writes:
        is_there = write.id in ids
        kind, _, code = write.outcome.partition(" ")
        if kind == "acknowledged":
            verdict.acknowledged += 1
            if not is_there:
                verdict.lost.append(write.id)
        elif kind == "failed":
            verdict.failed[code] = verdict.failed.get(code, 0) + 1
            if is_there:
                verdict.phantoms.append(write.id)
        else:
            verdict.unknown[code] = verdict.unknown.get(code, 0) + 1
    sent = {write.id for write in writes}
    verdict.invented = [key for key in ids if key not in sent]
    return verdict


class Load:
    def __init__(self, url):
        self.url = url
        self.writes = []
        self.stale = []
        self.has_ended = threading.Event()
        self.threads = [threading.Thread(target=self._writer, args=(n,), daemon=True) for n in range(1, WRITERS + 1)]
        self.window = self.marked = 0.0

    def start(self):
        for thread in self.threads:
            thread.start()

    def stop(self):
        self.has_ended.set()
        for thread in self.threads:
            thread.join(90)

    def _writer(self, number):
        connection, key = None, number * SESSION
        while not self.has_ended.wait(PAUSE_SECONDS):
            key += 1
            sent = time.monotonic()
            try:
                if connection is None or connection.closed:
                    # Nothing was sent yet: not a write, and no outcome.
                    try:
                        connection = psycopg.connect(self.url, autocommit=True, connect_timeout=40)
                    except psycopg.OperationalError:
                        continue
                # Half of them as single statements, half in a block, whose commits can be looked up.
                if number % 2:
                    connection.execute("INSERT INTO ledger VALUES (%s)", (key,))
                else:
                    connection.execute("BEGIN")
                    connection.execute("INSERT INTO ledger VALUES (%s)", (key,))
                    connection.execute("COMMIT")
                outcome = "acknowledged"
            except psycopg.Error as error:
                code = error.sqlstate
                # 08xxx, or a connection that broke with no word: nobody knows.
                outcome = f"failed {code}" if code and not code.startswith("08") else f"unknown {code or 'broken'}"
                self._end_block(connection)
            self.writes.append(Write(key, sent, outcome, time.monotonic()))
            if outcome == "acknowledged":
                self._look(connection, key)

    def _end_block(self, connection):
        """So that the next write begins its own: after an error a block is open until it is ended."""
        try:
            connection.rollback()
        except psycopg.Error:
            connection.close()

    def _look(self, connection, key):
        """A session sees what it wrote, whichever node serves the read."""
        try:
            (count,) = connection.execute("SELECT count(*) FROM ledger WHERE id = %s", (key,)).fetchone()
        except psycopg.Error:
            self._end_block(connection)
            return
        if count != 1:
            self.stale.append((key, count))

    def open_window(self):
        """From here on gaps are measured."""
        self.window = self.marked = time.monotonic()

    def mark(self):
        """From here on answers count."""
        self.marked = time.monotonic()

    def _since(self):
        return [write for write in list(self.writes) if write.sent >= self.marked and write.outcome == "acknowledged"]

    def wait_for_answers(self, count, seconds, why):
        """Until so many writes that were sent since the mark are acknowledged, and each writer has one of them."""
        def answered():
            since = self._since()
            return len(since) >= count and len({write.id // SESSION for write in since}) == WRITERS
        wait_until(seconds, f"{count} more writes are acknowledged, of each writer one", answered, why)

    def longest_gap(self):
        """The longest time in this window in which nobody was told of a success."""
        told = sorted(write.told for write in list(self.writes) if write.outcome == "acknowledged" and write.told >= self.window)
        return max((after - before for before, after in zip([self.window, *told], told)), default=0.0)
