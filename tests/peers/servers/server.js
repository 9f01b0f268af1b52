// The server that every system runs unchanged: node server.js PORT. It answers with its process id.
// What it does besides is chosen by its environment, once, so that the plain one has no branch in it:
// SPIN_MS keeps the CPU for so long, SPIN_TURNS for so many turns of a loop, COUNT_FILE gets a line
// for each request. THROW_AFTER throws at a random time of 1 to so many seconds. GRACEFUL ends it in good
// order when it is told to end: servers that are killed otherwise lose what they have.
const fs = require('node:fs');
const http = require('node:http');

const { SPIN_MS, SPIN_TURNS, COUNT_FILE, THROW_AFTER, GRACEFUL } = process.env;
const answer = String(process.pid);

const plain = (request, response) => response.end(answer);

const spinning = (request, response) => {
  const end = performance.now() + Number(SPIN_MS);
  while (performance.now() < end);
  response.end(answer);
};

const turning = (request, response) => {
  let turns = Number(SPIN_TURNS);
  while (turns > 0) turns -= 1;
  response.end(answer);
};

const counting = (request, response) => {
  fs.appendFileSync(COUNT_FILE, `${answer}\n`);
  response.end(answer);
};

let handler = plain;
if (SPIN_MS) handler = spinning;
if (SPIN_TURNS) handler = turning;
if (COUNT_FILE) handler = counting;

const server = http.createServer(handler).listen(Number(process.argv[2]));

if (THROW_AFTER) {
  const seconds = Math.ceil(Math.random() * Number(THROW_AFTER));
  setTimeout(() => { throw new Error('Ooops'); }, seconds * 1000);
}

if (GRACEFUL) {
  const end = () => server.close(() => process.exit(0));
  process.on('SIGINT', end);
  process.on('SIGTERM', end);
}
