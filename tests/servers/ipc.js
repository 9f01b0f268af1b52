// A worker that talks with its master as Node's cluster workers and PM2's do. It says it is ready
// when it gets USR2 (USR1 is Node's own), and tells what it gets as lines `SLOT MESSAGE`.
const http = require('node:http');

const tell = (what) => console.log(`${process.env.REUSEPORT_LAUNCH_SLOT} ${what}`);

process.on('message', (message) => tell(JSON.stringify(message)));
process.on('SIGUSR2', () => process.send('ready'));
process.on('SIGTERM', () => {
  tell('SIGTERM');
  // Late enough to see a message that comes with it.
  setTimeout(() => process.exit(), 200);
});
http.createServer((request, response) => {
  response.end(String(process.pid));
}).listen(8080, () => tell('listening'));
