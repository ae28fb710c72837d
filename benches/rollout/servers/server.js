// The benchmark's application for Node. It stops as its preset recommends.
const PIECES = 10;
const FINAL_CLOSE = 0x88;

const server = require("http").createServer((request, response) => {
  const { pathname, searchParams } = new URL(request.url, "http://web");
  const time = Number(searchParams.get("ms") || 0);
  if (pathname === "/trickle") {
    response.writeHead(200, { "Content-Length": PIECES });
    let left = PIECES;
    const timer = setInterval(() => {
      response.write(".");
      left -= 1;
      if (left === 0) {
        clearInterval(timer);
        response.end();
      }
    }, time / PIECES);
    return;
  }
  request.on("end", () => setTimeout(() => response.end("made fast\n"), time)).resume();
});

// The client's frames have a mask of zeros, and come one by one: without the mask they are the echo. The key is that of
// RFC 6455's example, and so is the answer to it.
server.on("upgrade", (request, socket) => {
  socket.write(
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
      "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
  );
  socket.on("error", () => {});
  socket.on("data", (frame) => {
    const text = frame.subarray(6);
    const echo = Buffer.concat([Buffer.from([frame[0], text.length]), text]);
    if (frame[0] === FINAL_CLOSE) socket.end(echo);
    else socket.write(echo);
  });
});

server.listen(Number(process.argv[2]), "0.0.0.0");
process.on("SIGTERM", () => server.close(() => process.exit(0)));
