// `server H1 H2C`: answers /slow/MS after so long, /pieces/MS/N in pieces with pauses, /events/MS without end, /upload/MS
// after the body and so long, /push/MS by a WebSocket that sends. `client URL PATH…`: HTTP/2, one path after the other; it
// says `ready` when the last is on its way, or with `idle` behind it when all are answered, and `answered`.
const http = require('http'), http2 = require('http2'), crypto = require('crypto');
const [mode, ...words] = process.argv.slice(2);

function handle(request, response) {
  const [, kind, number, times] = request.url.split('/'), pause = Number(number) || 0;
  const whole = (text) => response.setHeader('content-length', text.length) && response.end(text);
  if (kind === 'slow') { request.resume(); setTimeout(() => { response.setHeader('content-length', 2000); response.end('x'.repeat(2000)); }, pause); }
  else if (kind === 'pieces') {
    let left = Number(times);
    const piece = () => left-- > 0 ? (response.write('piece\n'), setTimeout(piece, pause)) : response.end('end\n');
    piece();
  } else if (kind === 'events') {
    response.setHeader('content-type', 'text/event-stream');
    const timer = setInterval(() => response.write('data: x\n\n'), pause);
    response.on('close', () => clearInterval(timer));
    response.write('data: x\n\n');
  } else if (kind === 'upload') {
    request.resume();
    request.on('end', () => setTimeout(() => { response.setHeader('content-length', 6); response.end('taken\n'); }, pause));
  } else { response.setHeader('content-length', 6); response.end('quick\n'); }
}

if (mode === 'server') {
  const server = http.createServer({ keepAliveTimeout: 60000 }, handle);
  server.on('upgrade', (request, socket) => {
    const key = crypto.createHash('sha1').update(request.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest('base64');
    socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ' + key + '\r\n\r\n');
    const timer = setInterval(() => socket.write(Buffer.from([0x81, 5, 104, 101, 108, 108, 111])), Number(request.url.split('/')[2]));
    socket.on('data', () => {}); socket.on('error', () => {}); socket.on('close', () => clearInterval(timer));
  });
  server.listen(words[0], '127.0.0.1');
  http2.createServer({}, handle).listen(words[1], '127.0.0.1');
} else {
  const [url, ...paths] = words, client = http2.connect(url, { rejectUnauthorized: false });
  const idle = paths[paths.length - 1] === 'idle' && paths.pop();
  const next = () => {
    const path = paths.shift();
    if (!path) return console.log(idle ? 'ready' : 'answered');
    const stream = client.request({ ':path': path });
    if (!paths.length && !idle) console.log('ready');
    stream.on('data', () => {}); stream.on('end', () => paths.length || idle ? setTimeout(next, 100) : next()); stream.end();
  };
  client.on('connect', next);
}
