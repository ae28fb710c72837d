"""The benchmark's application for WSGI servers; they know no WebSockets."""

import time

PIECES = 10


def trickle(seconds):
    for _ in range(PIECES):
        time.sleep(seconds / PIECES)
        yield b"."


def app(environ, start):
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    seconds = int(query[3:]) / 1000 if query.startswith("ms=") else 0
    if path == "/trickle":
        start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(PIECES))])
        return trickle(seconds)
    if path == "/upload":
        environ["wsgi.input"].read()
    if path == "/slow":
        time.sleep(seconds)
    body = b"made fast\n"
    start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
