#!/usr/bin/env python3
"""apps.py - servers and clients in the ways that Python programs are written. They end with 0, or say what was wrong.

  serve KIND ADDR PORT             an echo server until SIGTERM. KIND: forking, threading, asyncio, processes, selectors
  clients ADDR PORT COUNT ROUNDS   COUNT threads, a connection each; what comes back is compared
  async_clients ADDR PORT COUNT ROUNDS   the same in one event loop
  children ADDR PORT               runs a program for each request (a line): sha256sum, with the connection as stdin's source
  asks ADDR PORT COUNT             what children answers is compared
  tls_redis ADDR PORT COUNT        COUNT TLS connections to a Redis, values of many sizes
"""
import asyncio
import hashlib
import io
import multiprocessing
import os
import random
import selectors
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import threading

SIZES = (1, 100, 1448, 4096, 70000, 300000)


def fail(text):
	print('apps.py %s: %s' % (' '.join(sys.argv[1:]), text), file=sys.stderr, flush=True)
	os._exit(1)


def run_threads(run, count):
	threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
	for thread in threads:
		thread.start()
	for thread in threads:
		thread.join()


# --- servers ---

class Echo(socketserver.BaseRequestHandler):
	def handle(self):
		while True:
			data = self.request.recv(65536)
			if not data:
				return
			self.request.sendall(data)


def listener(addr, port):
	sock = socket.socket()
	sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
	sock.bind((addr, int(port)))
	sock.listen(128)
	return sock


def serve_socketserver(base, addr, port):
	socketserver.TCPServer.allow_reuse_address = True
	socketserver.TCPServer.request_queue_size = 64
	kind = type('Server', (base, socketserver.TCPServer), {'daemon_threads': True, 'block_on_close': False, 'max_children': 100})
	with kind((addr, int(port)), Echo) as server:
		server.serve_forever()


def serve_asyncio(addr, port):
	async def handle(reader, writer):
		try:
			while data := await reader.read(65536):
				writer.write(data)
				await writer.drain()
		except ConnectionError:
			pass
		writer.close()

	async def main():
		server = await asyncio.start_server(handle, addr, int(port), backlog=128)
		async with server:
			await server.serve_forever()
	asyncio.run(main())


def accept_loop(sock):
	signal.signal(signal.SIGTERM, signal.SIG_DFL)
	while True:
		conn, _ = sock.accept()
		with conn:
			while data := conn.recv(65536):
				conn.sendall(data)


def serve_processes(addr, port):
	sock = listener(addr, port)
	# as many as there may be clients: each serves one at a time
	workers = [multiprocessing.Process(target=accept_loop, args=(sock,), daemon=True) for _ in range(8)]
	for worker in workers:
		worker.start()
	for worker in workers:
		worker.join()


def serve_selectors(addr, port):
	sel = selectors.DefaultSelector()
	sock = listener(addr, port)
	sock.setblocking(False)
	sel.register(sock, selectors.EVENT_READ, None)
	while True:
		for key, events in sel.select():
			if key.data is None:
				try:
					conn, _ = sock.accept()
				except BlockingIOError:
					continue
				conn.setblocking(False)
				sel.register(conn, selectors.EVENT_READ, bytearray())
				continue
			conn, out = key.fileobj, key.data
			try:
				if events & selectors.EVENT_READ:
					data = conn.recv(65536)
					if not data and not out:
						sel.unregister(conn)
						conn.close()
						continue
					out += data
				if out:
					del out[:conn.send(out)]
			except BlockingIOError:
				pass
			except ConnectionError:
				sel.unregister(conn)
				conn.close()
				continue
			sel.modify(conn, (selectors.EVENT_READ if len(out) < 1 << 20 else 0) | (selectors.EVENT_WRITE if out else 0), out)


def serve(kind, addr, port):
	signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
	if kind == 'forking':
		serve_socketserver(socketserver.ForkingMixIn, addr, port)
	elif kind == 'threading':
		serve_socketserver(socketserver.ThreadingMixIn, addr, port)
	else:
		{'asyncio': serve_asyncio, 'processes': serve_processes, 'selectors': serve_selectors}[kind](addr, port)


# --- clients ---

def blocks(seed, rounds):
	rand = random.Random(seed)
	for i in range(rounds):
		yield rand.randbytes(SIZES[i % len(SIZES)])


def client(addr, port, seed, rounds):
	with socket.create_connection((addr, port), 20) as sock:
		for data in blocks(seed, rounds):
			back = bytearray()
			# large blocks are sent while they come back
			sender = threading.Thread(target=sock.sendall, args=(data,))
			sender.start()
			while len(back) < len(data):
				part = sock.recv(65536)
				if not part:
					fail('connection %d ended' % seed)
				back += part
			sender.join()
			if back != data:
				fail('connection %d: what came back differs' % seed)
		sock.shutdown(socket.SHUT_WR)
		if sock.recv(1):
			fail('connection %d: more came than was sent' % seed)


def clients(addr, port, count, rounds):
	def run(seed):
		try:
			client(addr, int(port), seed, int(rounds))
		except OSError as e:
			fail('connection %d: %s' % (seed, e))
	run_threads(run, int(count))


def async_clients(addr, port, count, rounds):
	async def run(seed):
		reader, writer = await asyncio.wait_for(asyncio.open_connection(addr, int(port)), 20)
		for data in blocks(seed, int(rounds)):
			writer.write(data)
			back = await asyncio.wait_for(reader.readexactly(len(data)), 20)
			if back != data:
				fail('connection %d: what came back differs' % seed)
			await writer.drain()
		# nothing comes now: the wait ends by its time
		try:
			await asyncio.wait_for(reader.read(1), 0.05)
			fail('connection %d: more came than was sent' % seed)
		except asyncio.TimeoutError:
			pass
		writer.close()
		await writer.wait_closed()

	async def main():
		await asyncio.gather(*(run(i) for i in range(int(count))))
	asyncio.run(main())


# --- children ---

def children(addr, port):
	signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
	sock = listener(addr, port)

	def handle(conn):
		with conn, conn.makefile('rwb') as stream:
			for line in stream:
				done = subprocess.run(['sha256sum'], input=line, capture_output=True, check=True)
				stream.write(done.stdout.split()[0] + b'\n')
				stream.flush()
	while True:
		threading.Thread(target=handle, args=(sock.accept()[0],), daemon=True).start()


def asks(addr, port, count):
	def run(i):
		with socket.create_connection((addr, int(port)), 20) as conn, conn.makefile('rwb') as stream:
			for n in range(5):
				line = b'question %d %d\n' % (i, n)
				stream.write(line)
				stream.flush()
				answer = stream.readline()
				if answer.strip().decode() != hashlib.sha256(line).hexdigest():
					fail('connection %d: the answer is %r' % (i, answer))
	run_threads(run, int(count))


# --- particular protocols ---

def tls_redis(addr, port, count):
	context = ssl.create_default_context()
	context.check_hostname = False
	context.verify_mode = ssl.CERT_NONE

	def run(i):
		with context.wrap_socket(socket.create_connection((addr, int(port)), 20)) as conn, conn.makefile('rb') as replies:
			for size in SIZES:
				value = random.Random(i * 1000 + size).randbytes(size)
				conn.sendall(b'*3\r\n$3\r\nSET\r\n$4\r\nk%03d\r\n$%d\r\n%s\r\n' % (i, size, value))
				if replies.readline() != b'+OK\r\n':
					fail('connection %d: SET of %d' % (i, size))
				conn.sendall(b'*2\r\n$3\r\nGET\r\n$4\r\nk%03d\r\n' % i)
				if replies.readline() != b'$%d\r\n' % size or replies.read(size + 2) != value + b'\r\n':
					fail('connection %d: GET of %d' % (i, size))
	run_threads(run, int(count))


COMMANDS = {f.__name__: f for f in (serve, clients, async_clients, children, asks, tls_redis)}
COMMANDS[sys.argv[1]](*sys.argv[2:])
