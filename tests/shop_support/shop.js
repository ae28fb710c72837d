// A small shop on Node. It notes every request in a ledger before it answers: who asked, the status, the path, the
// method. Told by the environment: PORT and LEDGER; ACCESS_LOG for a combined log of what users asked; COLD, how many
// requests it answers with 503 before it can; POSTGRES_PORT and REDIS_PORT, which it then asks for every product.
'use strict';
const fs = require('fs');
const http = require('http');
const net = require('net');

const { PORT, LEDGER, ACCESS_LOG, COLD, POSTGRES_PORT, REDIS_PORT } = process.env;
let cold = Number(COLD || 0);

/** A connection that is asked one question at a time; `take` cuts an answer off the front of what has come. */
class Line {
  constructor(port, hello, take) {
    this.take = take;
    this.asked = [];
    this.got = Buffer.alloc(0);
    this.socket = net.connect(Number(port), '127.0.0.1');
    this.socket.setNoDelay(true);
    this.socket.on('data', (data) => {
      this.got = Buffer.concat([this.got, data]);
      for (let end; this.asked.length && (end = this.take(this.got)) > 0; ) {
        this.asked.shift().resolve(this.got.subarray(0, end));
        this.got = this.got.subarray(end);
      }
    });
    this.socket.on('error', (error) => this.fail(error));
    this.socket.on('close', () => this.fail(new Error('closed')));
    if (hello) this.greeted = this.ask(hello);
  }
  fail(error) {
    this.dead = true;
    for (const { reject } of this.asked.splice(0)) reject(error);
  }
  ask(bytes) {
    return new Promise((resolve, reject) => {
      this.asked.push({ resolve, reject });
      this.socket.write(bytes);
    });
  }
}

/** PostgreSQL's messages, up to ReadyForQuery. */
function postgresEnd(bytes) {
  for (let at = 0; at + 5 <= bytes.length; ) {
    const kind = String.fromCharCode(bytes[at]);
    at += 1 + bytes.readInt32BE(at + 1);
    if (at <= bytes.length && kind === 'Z') return at;
  }
  return 0;
}

/** Redis's short answers: one line. */
function lineEnd(bytes) {
  const at = bytes.indexOf('\r\n');
  return at < 0 ? 0 : at + 2;
}

function postgresMessage(kind, text) {
  const body = Buffer.from(`${text}\0`);
  const head = Buffer.alloc(kind ? 5 : 8);
  if (kind) head.write(kind);
  head.writeInt32BE(body.length + (kind ? 4 : 8), kind ? 1 : 0);
  if (!kind) head.writeInt32BE(196608, 4); // protocol 3.0
  return Buffer.concat([head, body]);
}

let database, cache;
async function product(id) {
  if (!POSTGRES_PORT) return `product ${id}`;
  if (!database || database.dead) {
    database = new Line(POSTGRES_PORT, postgresMessage('', 'user\0postgres\0database\0postgres\0'), postgresEnd);
  }
  if (!cache || cache.dead) cache = new Line(REDIS_PORT, null, lineEnd);
  await database.greeted;
  const count = await cache.ask(`INCR product:${id}\r\n`);
  const rows = await database.ask(postgresMessage('Q', `select name from products where id = ${id}`));
  if (count[0] !== 0x3a || !rows.includes(`product ${id}`)) throw new Error('no such product');
  return `product ${id}`;
}

async function answer(request, body) {
  const url = new URL(request.url, 'http://shop.example');
  const item = url.pathname.match(/^\/(?:items|products)\/(\d+)$/);
  if (item) return Number(item[1]) >= 1 && Number(item[1]) <= 1000 ? product(item[1]) : null;
  if (url.pathname === '/products') return product(1);
  if (url.pathname === '/') return 'home';
  if (url.pathname === '/report') {
    const { day, format } = Object.fromEntries(url.searchParams);
    return /^\d{4}-\d\d-\d\d$/.test(day) && ['html', 'json'].includes(format) ? `report of ${day}` : null;
  }
  if (url.pathname === '/render' && request.method === 'POST') {
    return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(JSON.parse(body).id) ? 'rendered' : null;
  }
  return null;
}

const server = http.createServer((request, response) => {
  const parts = [];
  request.on('data', (data) => parts.push(data));
  request.on('end', async () => {
    const isHealth = request.url === '/healthz';
    let status = 200, text = 'ok';
    if (!isHealth) {
      try {
        text = cold > 0 ? undefined : await answer(request, Buffer.concat(parts).toString());
        status = text === undefined ? 503 : text === null ? 404 : 200;
        if (text === undefined) cold -= 1;
      } catch (error) {
        [status, text] = [500, error.message];
      }
      const who = (request.headers['user-agent'] || '').startsWith('boathook/') ? 'warm' : 'user';
      fs.appendFileSync(LEDGER, `${who} ${status} ${request.url} ${request.method}\n`);
      if (ACCESS_LOG && !request.headers['x-warm-up']) {
        const date = new Date().toUTCString().replace(/^\w+, (\d+) (\w+) (\d+) (.*) GMT$/, '$1/$2/$3:$4 +0000');
        fs.appendFileSync(ACCESS_LOG, `127.0.0.1 - - [${date}] "${request.method} ${request.url} HTTP/1.1" ${status} ` +
          `${(text || '').length} "-" "${request.headers['user-agent'] || '-'}"\n`);
      }
    }
    const said = `${text || 'not here'}\n`;
    response.writeHead(status, { 'Content-Type': 'text/plain', 'Content-Length': Buffer.byteLength(said) });
    response.end(said);
  });
});
server.listen(Number(PORT), '127.0.0.1');
