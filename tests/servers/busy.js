// Keeps the CPU for 4 ms for each request to the given port, and answers with its pid.
const http = require('node:http');

http.createServer((request, response) => {
  const end = performance.now() + 4;
  while (performance.now() < end);
  response.end(String(process.pid));
}).listen(Number(process.argv[2]));
