// Node's own way to run a server several times, as its documentation has it: a worker that dies is
// replaced, and USR2 replaces all of them, one after the other, the new one first.
// node cluster.js POLICY SERVER PORT [WORKERS]; POLICY is SCHED_NONE (a shared handle) or SCHED_RR.
const cluster = require('node:cluster');
const { once } = require('node:events');

const [policy, exec, port, workers = 2] = process.argv.slice(2);
cluster.schedulingPolicy = cluster[policy];
cluster.setupPrimary({ exec, args: [port] });

cluster.on('listening', (worker) => console.log('listening', worker.process.pid));
cluster.on('exit', (worker) => {
  if (!worker.exitedAfterDisconnect) cluster.fork();
});

process.on('SIGUSR2', async () => {
  for (const old of Object.values(cluster.workers)) {
    await once(cluster.fork(), 'listening');
    old.disconnect();
    await once(old, 'exit');
  }
  console.log('restarted');
});

for (let count = 0; count < Number(workers); count += 1) cluster.fork();
