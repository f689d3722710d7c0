"""People who use the example application while it loses its database's primary again and again."""

import threading
import time
import uuid

from cluster import request
from waiting import Failure

VISITORS = 4
PAUSE_SECONDS = 0.1


class Visitors:
    """Each POSTs, and then looks whether GET shows something. None of them ever tries twice: the application has to."""

    def __init__(self, url):
        self.url = url
        # Keys of POSTs that were answered by 201.
        self.answered = []
        self.trouble = []
        self.slowest = 0.0
        self.has_ended = threading.Event()
        self.threads = [threading.Thread(target=self._visit, args=(n,), daemon=True) for n in range(VISITORS)]

    def start(self):
        for thread in self.threads:
            thread.start()

    def stop(self):
        self.has_ended.set()
        for thread in self.threads:
            thread.join(90)

    def check(self):
        if self.trouble:
            raise Failure("; ".join(self.trouble[:5]))

    def _visit(self, number):
        while not self.has_ended.wait(PAUSE_SECONDS):
            key = str(uuid.uuid4())
            started = time.monotonic()
            status, answer = request(self.url + "/data", "POST", {"body": f"visitor {number}"}, key, 80)
            self.slowest = max(self.slowest, time.monotonic() - started)
            if status != 201 or answer["id"] != key:
                self.trouble.append(f"POST {key} is answered by {status}: {answer}")
                continue
            self.answered.append(key)
            status, rows = request(self.url + "/data?limit=1", "GET", None, None, 80)
            if status != 200 or len(rows) != 1:
                self.trouble.append(f"GET is answered by {status}: {rows}")
