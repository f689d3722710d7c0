"""What the Python suites share: where the server is, how a habit is run under a deadline, and how its result is told."""

import os
import sys
import threading
import traceback

HOST = os.environ["SUITE_HOST"]
PORT = int(os.environ["SUITE_PORT"])
USER = os.environ["SUITE_USER"]
PASSWORD = os.environ["SUITE_PASSWORD"]
DATABASE = os.environ["SUITE_DATABASE"]
SOCKET_DIR = os.environ.get("SUITE_SOCKET_DIR", "")
CA = os.environ.get("SUITE_CA", "")
POOLED = os.environ.get("SUITE_POOLED") == "1"
DEADLINE = float(os.environ.get("SUITE_DEADLINE", "60"))
ONLY = set(os.environ.get("SUITE_HABITS", "").split())
LARGE = int(os.environ.get("SUITE_LARGE_BYTES", str(50 * 1024 * 1024)))


class Skip(Exception):
    """The habit does not apply here; the reason is printed."""


def expect(condition, message="unexpected"):
    if not condition:
        raise AssertionError(message)


def same(found, wanted):
    if found != wanted:
        raise AssertionError(f"found {str(found)[:300]!r}, wanted {str(wanted)[:300]!r}")


class Suite:
    """Collects habits with a decorator and runs them one after the other."""

    def __init__(self, driver):
        self.driver, self.habits, self.failed = driver, [], 0

    def habit(self, function):
        self.habits.append(function)
        return function

    def tell(self, verdict, habit, detail=""):
        self.failed += verdict == "FAIL"
        print(f"{verdict} {self.driver} {habit} {' '.join(str(detail).split())}".rstrip(), flush=True)

    def run_one(self, function):
        """Runs in a thread of its own, so that a driver that waits forever is a failure and not the end."""
        result = {}

        def body():
            try:
                result["detail"] = function() or ""
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is the result
                result["error"] = error

        thread = threading.Thread(target=body, daemon=True)
        thread.start()
        thread.join(DEADLINE)
        name = function.__name__
        if thread.is_alive():
            self.tell("FAIL", name, f"no result within {DEADLINE:.0f} s")
        elif isinstance(result.get("error"), Skip):
            self.tell("skip", name, result["error"])
        elif "error" in result:
            error = result["error"]
            traceback.print_exception(error) if os.environ.get("SUITE_TRACE") else None
            place = traceback.extract_tb(error.__traceback__)
            mine = [frame.lineno for frame in place if frame.filename == sys.argv[0]]
            self.tell("FAIL", name, f"{type(error).__name__}: {error} (line {mine[-1] if mine else '?'})"[:500])
        else:
            self.tell("ok", name, result["detail"])

    def run(self):
        for function in self.habits:
            if not ONLY or function.__name__ in ONLY:
                self.run_one(function)
        sys.stdout.flush()
        # Threads that still wait must not keep us.
        os._exit(1 if self.failed else 0)
