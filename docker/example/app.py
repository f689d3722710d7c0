"""A small web application whose database may change its primary at any moment.

    POST /data      a JSON object with a text `body`; header Idempotency-Key (a UUID) names the attempt; 201 and the row
    GET  /data      the rows, oldest first: ?limit=1000, ?after=ID

All it knows of the database is one connection string, DATABASE_URL, that of pgbaton. There is no list of hosts, and no
switch to turn when another one becomes the primary: what is left to do is in `attempt`, and is ten lines long.
"""

import os
import random
import threading
import time
import uuid

import flask
import psycopg
from psycopg.rows import dict_row

# How long a request goes on trying. Behind pgbaton a statement already waits for a primary by itself (failover.hold).
PATIENCE_SECONDS = 60

# What was not done, surely, and may succeed when done again: a transaction that was rolled back (serialization, deadlock,
# its primary is gone), no primary or no room for now.
AGAIN = {"40001", "40P01", "57P03", "53300", "53400"}
# The commit was sent and its answer lost: it may have happened. Class 08 as a whole, because so it is for every connection
# that breaks.
UNKNOWN = "08"

app = flask.Flask(__name__)
per_thread = threading.local()


def connection():
    """One connection for each thread. It outlives failovers; it is made anew if it was closed all the same."""
    known = getattr(per_thread, "connection", None)
    if known is None or known.closed:
        known = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True, row_factory=dict_row)
        per_thread.connection = known
    return known


def attempt(work):
    """Does `work`, again and again until it succeeds or the request's patience ends.

    After an unknown outcome it is simply done again, so it must be something that may be done twice: here each row carries
    the key that its client chose, and the one that is there already stays. That is how the outcome is looked up: by key.
    """
    give_up = time.monotonic() + PATIENCE_SECONDS
    pause = 0.02
    while True:
        try:
            return work(connection())
        except psycopg.OperationalError as error:
            # Errors of a connection that broke, or could not be made, have no code of the server's.
            code = error.sqlstate or UNKNOWN
            if not (code in AGAIN or code.startswith(UNKNOWN)) or time.monotonic() > give_up:
                raise
            app.logger.info("again, after %s: %s", code, str(error).partition("\n")[0])
        # Not all at once, and not at a beat.
        time.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(pause * 2, 1)


def make_table():
    # In one transaction, with a lock for two that start at once: IF NOT EXISTS alone looks before it waits.
    attempt(lambda db: db.execute("""
        SELECT pg_advisory_xact_lock(20240615);
        CREATE TABLE IF NOT EXISTS data (
            id uuid PRIMARY KEY,
            body text NOT NULL,
            created timestamptz NOT NULL DEFAULT clock_timestamp()
        )"""))


def as_json(row):
    return {"id": str(row["id"]), "body": row["body"], "created": row["created"].isoformat()}


@app.post("/data")
def post():
    given = flask.request.get_json(silent=True)
    body = given.get("body") if isinstance(given, dict) else None
    # PostgreSQL's text holds every character but this one.
    if not isinstance(body, str) or "\0" in body:
        return {"error": "send a JSON object with a text \"body\""}, 400
    try:
        key = uuid.UUID(flask.request.headers.get("Idempotency-Key") or str(uuid.uuid4()))
    except ValueError:
        return {"error": "Idempotency-Key has to be a UUID"}, 400

    # Done twice it stores once, and gives the row that is there either way.
    def store(db):
        return db.execute("""
            INSERT INTO data (id, body) VALUES (%s, %s)
            ON CONFLICT (id) DO UPDATE SET id = data.id RETURNING *""", (key, body)).fetchone()

    row = attempt(store)
    if row["body"] != body:
        return {"error": "this Idempotency-Key was used for another body"}, 409
    return as_json(row), 201


@app.get("/data")
def get():
    try:
        limit = min(max(int(flask.request.args.get("limit", 1000)), 1), 10000)
        after = uuid.UUID(flask.request.args["after"]) if "after" in flask.request.args else None
    except ValueError:
        return {"error": "limit has to be a number, after the id of a row"}, 400

    # By itself, so that a replica may serve it.
    def read(db):
        return db.execute("""
            SELECT * FROM data
            WHERE %(after)s::uuid IS NULL
               OR (created, id) > (SELECT created, id FROM data WHERE id = %(after)s)
            ORDER BY created, id LIMIT %(limit)s""", {"after": after, "limit": limit}).fetchall()

    return [as_json(row) for row in attempt(read)]


@app.get("/health")
def health():
    """This process answers. Whether the database does is for pgbaton to say: a restart here would not help there."""
    return {}


@app.errorhandler(psycopg.OperationalError)
def no_database(error):
    """Patience has run out. 503: the same request, with the same key, may be sent again."""
    app.logger.error("gave up: %s", error)
    return {"error": "the database does not answer; send the same request again"}, 503, {"Retry-After": "5"}


if __name__ == "__main__":
    import logging

    import waitress

    logging.basicConfig(level=logging.INFO)
    make_table()
    host, _, port = os.environ.get("LISTEN", "127.0.0.1:8000").rpartition(":")
    waitress.serve(app, host=host, port=int(port), threads=16)
