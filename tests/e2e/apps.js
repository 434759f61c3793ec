// apps.js - servers and clients on Node.js. Ends with 0, or says what was wrong.
//   serve ADDR PORT                  http: / answers hello, /echo the body
//   cluster ADDR PORT                the same from two workers
//   clients ADDR PORT COUNT ROUNDS   TCP to an echo server; what comes back is compared
'use strict';
const cluster = require('cluster'), crypto = require('crypto'), http = require('http'), net = require('net');
const [command, addr, port, count, rounds] = process.argv.slice(2);

function serve(ready) {
	const server = http.createServer((request, response) => {
		if (request.url === '/echo')
			request.pipe(response);
		else
			response.end('hello\n');
	});
	server.listen({ host: addr, port: Number(port), backlog: 512 }, ready);
	process.on('SIGTERM', () => process.exit(0));
}

function fail(text) {
	console.error('apps.js: ' + text);
	process.exit(1);
}

function client(n, done) {
	const socket = net.connect(Number(port), addr);
	let round = 0, want, got = 0, hash;
	const next = () => {
		if (round++ === Number(rounds))
			return socket.end();
		const data = crypto.randomBytes([1, 1448, 70000, 300000][round % 4]);
		want = { size: data.length, sum: crypto.createHash('sha256').update(data).digest('hex') };
		got = 0;
		hash = crypto.createHash('sha256');
		socket.write(data);
	};
	socket.setTimeout(20000, () => fail(`connection ${n}: nothing came for 20 s`));
	socket.on('connect', next);
	socket.on('error', (e) => fail(`connection ${n}: ${e.message}`));
	socket.on('data', (part) => {
		got += part.length;
		hash.update(part);
		if (got > want.size)
			fail(`connection ${n}: more came than was sent`);
		if (got === want.size) {
			if (hash.digest('hex') !== want.sum)
				fail(`connection ${n}: what came back differs`);
			next();
		}
	});
	socket.on('close', () => {
		if (round <= Number(rounds))
			fail(`connection ${n} ended in round ${round}`);
		done();
	});
}

if (command === 'serve') {
	serve(() => console.log('serving'));
} else if (command === 'cluster') {
	if (cluster.isPrimary) {
		let listening = 0;
		cluster.on('listening', () => ++listening === 2 && console.log('serving'));
		cluster.on('exit', (worker, code, signal) => fail(`worker ended: ${code || signal}`));
		cluster.fork();
		cluster.fork();
		process.on('SIGTERM', () => {
			cluster.removeAllListeners('exit');
			cluster.disconnect(() => process.exit(0));
			setTimeout(() => process.exit(0), 2000);
		});
	} else {
		serve(() => {});
	}
} else if (command === 'clients') {
	let left = Number(count);
	for (let n = 0; n < Number(count); n++)
		client(n, () => --left === 0 && process.exit(0));
} else {
	fail('unknown command');
}
