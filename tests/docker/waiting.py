"""What the parts of this suite have in common: to wait for something, and to say that it did not come or cannot be tried."""

import time


class Failure(Exception):
    """Something is not as it has to be; shown without a traceback."""


class Skipped(Exception):
    """This machine cannot try it, and why."""


def wait_until(seconds, what, condition, why=lambda: ""):
    """Until `condition` holds. `why` is asked what there is instead, when the time is up."""
    deadline = time.monotonic() + seconds
    while True:
        if condition():
            return
        if time.monotonic() > deadline:
            raise Failure(f"after {seconds} s still not: {what}. {why()}".rstrip())
        time.sleep(0.1)
