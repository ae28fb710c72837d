"""The benchmark's application for ASGI servers."""

import asyncio

PIECES = 10


async def echo(receive, send):
    while True:
        message = await receive()
        if message["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        elif message["type"] == "websocket.disconnect":
            return
        else:
            await send({"type": "websocket.send", "text": message["text"]})


async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await echo(receive, send)
    if scope["type"] != "http":
        return
    path, query = scope["path"], scope["query_string"]
    seconds = int(query[3:]) / 1000 if query.startswith(b"ms=") else 0
    if path == "/upload":
        while (await receive()).get("more_body"):
            pass
    if path == "/slow":
        await asyncio.sleep(seconds)
    bodies = [b"."] * PIECES if path == "/trickle" else [b"made fast\n"]
    length = str(sum(map(len, bodies))).encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for body in bodies:
        if path == "/trickle":
            await asyncio.sleep(seconds / PIECES)
        await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body"})
