#!/usr/bin/env python3
"""tcp.py - the small network programs of the end-to-end tests. Each subcommand is one of them; they run on either side of
a link, plainly or under Pronk. They end with 0, or say on stderr what was wrong and end with 1.

  serve ADDR PORT [COUNT]         accept connections and keep them; "serving" when ready. With COUNT: end after so many ends
  hold ADDR PORT COUNT [FROM,..]  open COUNT connections (from these addresses in turn), print "open", keep them until stdin
                                  ends, then see that none has ended meanwhile
  watch ADDR PORT                 open a connection, print "open", then "ended KIND TIME_US" when it ends
  waits ADDR PORT                 threads that sleep in recv, poll, select, epoll_wait and accept on connections to
                                  ADDR:PORT; "ready", then one line "CALL RESULT TIME_US" for each; then "alive"
  first ADDR PORT IDLE_S COUNT    the time (us) of one Redis PING after IDLE_S idle seconds, COUNT times
  memcached ADDR PORT THREADS N   N verified set/get pairs on each of THREADS connections
  fetch URL SHA256 COUNT          fetch URL over COUNT connections and compare
  early ADDR PORT SECONDS         connects as soon as somebody listens, and asks a redis-server over that connection
  get ADDR PORT FROM COUNT        a file of an HTTP server, a connection for each, from the COUNT ports from FROM on
"""
import errno
import hashlib
import os
import random
import select
import socket
import sys
import threading
import time
import urllib.request


def now_us():
	return time.time_ns() // 1000


def say(*words):
	# in one write: threads say things at the same time
	os.write(1, (' '.join(map(str, words)) + '\n').encode())


def fail(text):
	print('tcp.py %s: %s' % (' '.join(sys.argv[1:]), text), file=sys.stderr, flush=True)
	os._exit(1)


def serve(addr, port, count='0'):
	listener = socket.socket()
	listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
	listener.bind((addr, int(port)))
	listener.listen(1024)
	listener.setblocking(False)
	poll = select.epoll()
	poll.register(listener, select.EPOLLIN)
	open_sockets, ended = {}, 0
	say('serving')
	while not int(count) or ended < int(count):
		for fd, _ in poll.poll():
			if fd == listener.fileno():
				try:
					while True:
						sock = listener.accept()[0]
						sock.setblocking(False)
						open_sockets[sock.fileno()] = sock
						poll.register(sock, select.EPOLLIN)
				except BlockingIOError:
					continue
			sock = open_sockets[fd]
			try:
				data = sock.recv(65536)
			except OSError:
				data = b''
			if not data:
				poll.unregister(fd)
				open_sockets.pop(fd).close()
				ended += 1
	say('ended', ended)


def hold(addr, port, count, sources=''):
	sources = [s for s in sources.split(',') if s]
	waiting, held = select.epoll(), {}
	todo, pending = int(count), {}
	end = time.monotonic() + 60
	while len(held) < int(count):
		while todo and len(pending) < 100:
			sock = socket.socket()
			sock.setblocking(False)
			if sources:
				# without this a bound address takes one port of all destinations
				sock.setsockopt(socket.IPPROTO_IP, 24, 1)
				sock.bind((sources[todo % len(sources)], 0))
			rc = sock.connect_ex((addr, int(port)))
			if rc not in (0, errno.EINPROGRESS):
				fail('connect: %s' % os.strerror(rc))
			pending[sock.fileno()] = sock
			waiting.register(sock, select.EPOLLOUT)
			todo -= 1
		for fd, _ in waiting.poll(1):
			rc = pending[fd].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
			if rc:
				fail('connection %d of %s: %s' % (len(held), count, os.strerror(rc)))
			waiting.modify(fd, 0)
			held[fd] = pending.pop(fd)
		if time.monotonic() > end:
			fail('only %d of %s connections within 60 s' % (len(held), count))
	say('open')
	while os.read(0, 1):
		pass
	for sock in held.values():
		try:
			if not sock.recv(1):
				fail('a connection was closed by the other side')
		except BlockingIOError:
			pass
	for sock in held.values():
		sock.close()


def outcome(call):
	try:
		result = call()
	except socket.timeout:
		return 'TIMEOUT'
	except OSError as e:
		return errno.errorcode.get(e.errno, str(e.errno))
	return 'EOF' if result == b'' else 'data' if isinstance(result, bytes) else str(result).replace(' ', '')


def watch(addr, port):
	sock = socket.create_connection((addr, int(port)), timeout=5)
	sock.settimeout(20)
	say('open')
	say('ended', outcome(lambda: sock.recv(1)), now_us())


def waits(addr, port):
	def connection():
		sock = socket.create_connection((addr, int(port)), timeout=5)
		sock.settimeout(None)
		return sock

	def in_poll(sock):
		p = select.poll()
		p.register(sock, select.POLLIN)
		return outcome(lambda: p.poll(20000) and sock.recv(1))

	def in_select(sock):
		return outcome(lambda: select.select([sock], [], [], 20)[0] and sock.recv(1))

	def in_epoll(sock):
		p = select.epoll()
		p.register(sock, select.EPOLLIN)
		return outcome(lambda: p.poll(20) and sock.recv(1))

	def in_accept(sock):
		# on the address of this side of the link: a wildcard listener is the kernel's, too, and goes on there
		listener = socket.socket()
		listener.bind((sock.getsockname()[0], 7999))
		listener.listen(5)
		return outcome(listener.accept)

	jobs = {'recv': lambda s: outcome(lambda: s.recv(1)), 'poll': in_poll, 'select': in_select, 'epoll': in_epoll,
		'accept': in_accept}
	threads = []
	for name, job in jobs.items():
		sock = connection()

		def body(name=name, job=job, sock=sock):
			result = job(sock)
			say(name, result, now_us())

		threads.append(threading.Thread(target=body, daemon=True))
	for t in threads:
		t.start()
	time.sleep(0.3)
	say('ready')
	for t in threads:
		t.join(20)
		if t.is_alive():
			fail('a thread still waits')
	say('alive')
	while os.read(0, 1):
		pass


def first(addr, port, idle_s, count):
	sock = socket.create_connection((addr, int(port)), timeout=5)
	sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

	def ping():
		start = time.perf_counter_ns()
		sock.sendall(b'PING\r\n')
		if sock.recv(64) != b'+PONG\r\n':
			fail('no PONG')
		return (time.perf_counter_ns() - start) // 1000

	ping()
	for _ in range(int(count)):
		time.sleep(float(idle_s))
		say(ping())


def memcached(addr, port, thread_count, count):
	def body(seed):
		rng = random.Random(seed)
		sock = socket.create_connection((addr, int(port)), timeout=20)
		f = sock.makefile('rb')
		for i in range(int(count)):
			size = 900000 if i == 0 else rng.choice((1, 100, 1400, 4096, 30000))
			value = rng.randbytes(size)
			sock.sendall(b'set k%d 0 0 %d\r\n' % (seed, size) + value + b'\r\n')
			if f.readline() != b'STORED\r\n':
				fail('not STORED')
			sock.sendall(b'get k%d\r\n' % seed)
			if f.readline() != b'VALUE k%d 0 %d\r\n' % (seed, size) or f.read(size + 2) != value + b'\r\n' or \
					f.readline() != b'END\r\n':
				fail('value %d of connection %d is not what was stored' % (i, seed))
		sock.close()

	errors = []

	def guard(seed):
		try:
			body(seed)
		except Exception as e:
			errors.append('connection %d: %r' % (seed, e))

	threads = [threading.Thread(target=guard, args=(i,)) for i in range(int(thread_count))]
	for t in threads:
		t.start()
	for t in threads:
		t.join()
	if errors:
		fail('%d connections failed: %s' % (len(errors), errors[0]))


def fetch(url, sha256, count):
	for i in range(int(count)):
		with urllib.request.urlopen(url, timeout=20) as reply:
			if hashlib.sha256(reply.read()).hexdigest() != sha256:
				fail('fetch %d differs' % i)


def get(addr, port, source, count):
	for i in range(int(source), int(source) + int(count)):
		sock = socket.socket()
		sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
		sock.bind(('', i))
		sock.settimeout(10)
		try:
			sock.connect((addr, int(port)))
			sock.sendall(b'GET /small HTTP/1.0\r\n\r\n')
			with sock.makefile('rb') as f:
				reply = f.read()
		except OSError as e:
			fail('from port %d: %r' % (i, e))
		if not reply.startswith(b'HTTP/1.1 200') or not reply.endswith(b'\r\n\r\nhello\n'):
			fail('from port %d: %r' % (i, reply[:80]))
		sock.close()


def early(addr, port, seconds):
	"""Connects as soon as anybody answers, and asks a redis-server again and again over that connection."""
	deadline = time.monotonic() + 30
	while True:
		sock = socket.socket()
		sock.settimeout(5)
		try:
			sock.connect((addr, int(port)))
			break
		except OSError as e:
			sock.close()
			if time.monotonic() > deadline:
				fail('nobody listens: %r' % e)
			time.sleep(0.001)
	end = time.monotonic() + float(seconds)
	while time.monotonic() < end:
		try:
			sock.sendall(b'PING\r\n')
			reply = sock.recv(100)
		except OSError as e:
			fail('the first connection: %r' % e)
		if reply != b'+PONG\r\n':
			fail('the first connection: %r' % reply)
		time.sleep(0.05)


if __name__ == '__main__':
	commands = {f.__name__: f for f in (serve, hold, watch, waits, first, memcached, fetch, get, early)}
	if len(sys.argv) < 2 or sys.argv[1] not in commands:
		sys.exit(__doc__)
	commands[sys.argv[1]](*sys.argv[2:])
