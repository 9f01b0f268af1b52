// The example from Node's own documentation, with the process id as the answer.
const http = require('node:http');

http.createServer((request, response) => {
  response.end(String(process.pid));
}).listen(Number(process.argv[2]));
