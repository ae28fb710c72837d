"""A worker on a Redis list, as an example: it knows nothing of signals, only of two files."""

import os
import socket
import sys
import time

FOLDER = os.environ.get("WORKER_FOLDER", "/run/worker")
STOP, BUSY = os.path.join(FOLDER, "stop"), os.path.join(FOLDER, "busy")
QUEUE = socket.create_connection((os.environ.get("REDIS_HOST", "queue"), int(os.environ.get("REDIS_PORT", "6379"))))
LINES = QUEUE.makefile("rb")


def ask(*words):
    """One command; a string or nothing comes back."""
    QUEUE.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))
    head = LINES.readline()
    if head[:1] != b"$" or head.startswith(b"$-1"):
        return None
    return LINES.read(int(head[1:]) + 2)[:-2]


while True:
    # Busy first, then the look at stop: whoever has written stop and sees no busy knows that no item will be taken.
    open(BUSY, "w").close()
    if os.path.exists(STOP):
        os.remove(BUSY)
        break
    item = ask(b"LPOP", b"todo")
    if item:
        print("working on", item.decode(), flush=True)
        time.sleep(float(os.environ.get("ITEM_SECONDS", "60")))
        ask(b"RPUSH", b"done", item)
    os.remove(BUSY)
    time.sleep(0.05 if item else 0.5)
print("no more items", flush=True)
# TERM ends it: a worker that ended by itself now would look like a crash.
while True:
    time.sleep(1000)
