#!/usr/bin/env python3
"""limits.py - programs that run into limits, for limits.sh. They run on either side of a link; each says on standard output
what happened, and waits for lines of the fifo $PKE_GATE: "go" where it stops, "over" at the end.

  queue ADDR PORT BACKLOG          listen and accept nothing; "listening"; after go accept everything for two seconds: "accepted N"
  many ADDR PORT COUNT             COUNT connection attempts at a time, two seconds: "open N ERRNO=n..."; after go close: "closed"
  take ADDR PORT                   accept and keep everything; "listening"; after go close all: "closed N"
  listeners ADDR PORT COUNT        listen on COUNT ports from PORT on: "open N ERRNO=n..."; after go close: "closed"
  fill ADDR PORT COUNT             COUNT connections, written to until no more goes: "stuck BYTES"; after go write the rest of
                                   1 MB each and see that every one was answered: "done"
  sink ADDR PORT                   accept and read nothing; "listening"; after go read everything, answer each end of
                                   stream with the bytes counted; 
  source ADDR PORT COUNT SIZE      COUNT connections, SIZE bytes on each, then the end; "sent"; "answers ok" when each was told SIZE
  herd MODE ADDR PORT WORKERS      WORKERS forked processes that accept from one listener, asleep in MODE (accept, exclusive, epoll)
  knock ADDR PORT COUNT            COUNT connections, one after the other, each answered and closed
"""
import collections
import errno
import os
import select
import socket
import sys
import threading
import time


gate = None


def say(*words):
	os.write(1, (' '.join(map(str, words)) + '\n').encode())


def told():
	global gate
	if gate is None: # opened late, so that forked workers do not read it
		gate = open(os.environ['PKE_GATE'])
	return gate.readline().strip() == 'go'


def errors(found):
	return ' '.join('%s=%d' % (errno.errorcode.get(e, e), n) for e, n in sorted(found.items()))


def listener(addr, port, backlog=1024):
	sock = socket.socket()
	sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
	sock.bind((addr, int(port)))
	sock.listen(backlog)
	return sock


def queue(addr, port, backlog):
	sock = listener(addr, port, int(backlog))
	say('listening')
	told()
	kept, end = [], time.monotonic() + 4
	sock.settimeout(0.1)
	while time.monotonic() < end:
		try:
			kept.append(sock.accept()[0])
		except TimeoutError:
			pass
	say('accepted', len(kept))
	told()


def many(addr, port, count):
	socks, found, done = [], collections.Counter(), 0
	poll = select.poll()
	by_fd = {}
	for _ in range(int(count)):
		try:
			sock = socket.socket()
		except OSError as e:
			found[e.errno] += 1
			continue
		sock.setblocking(False)
		rc = sock.connect_ex((addr, int(port)))
		if rc not in (0, errno.EINPROGRESS):
			found[rc] += 1
			sock.close()
			continue
		socks.append(sock)
		by_fd[sock.fileno()] = sock
		poll.register(sock, select.POLLOUT)
	end = time.monotonic() + 2
	while time.monotonic() < end:
		for fd, _ in poll.poll(100):
			poll.unregister(fd)
			rc = by_fd[fd].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
			if rc:
				found[rc] += 1
			else:
				done += 1
	say('open', done, errors(found))
	told()
	for sock in socks:
		sock.close()
	say('closed')
	told()


def take(addr, port):
	sock, kept = listener(addr, port), []

	def accept():
		while True:
			kept.append(sock.accept()[0])
	threading.Thread(target=accept, daemon=True).start()
	say('listening')
	while told():
		for one in kept:
			one.close()
		say('closed', len(kept))
		kept.clear()


def listeners(addr, port, count):
	kept, found = [], collections.Counter()
	for i in range(int(count)):
		try:
			kept.append(listener(addr, int(port) + i))
		except OSError as e:
			found[e.errno] += 1
	say('open', len(kept), errors(found))
	told()
	for sock in kept:
		sock.close()
	say('closed')
	told()


def fill(addr, port, count):
	size, socks, sent = 1 << 20, [], {}
	chunk = bytes(range(256)) * 64
	for _ in range(int(count)):
		sock = socket.create_connection((addr, int(port)), 10)
		sock.setblocking(False)
		socks.append(sock)
		sent[sock] = 0
	quiet = time.monotonic() + 1
	while time.monotonic() < quiet:
		for sock in socks:
			try:
				if sent[sock] < size:
					at = sent[sock] % len(chunk)
					sent[sock] += sock.send(chunk[at:at + size - sent[sock]])
					quiet = time.monotonic() + 1
			except BlockingIOError:
				pass
	say('stuck', sum(sent.values()))
	told()
	for sock in socks:
		sock.settimeout(20)
		while sent[sock] < size:
			at = sent[sock] % len(chunk)
			sent[sock] += sock.send(chunk[at:at + size - sent[sock]])
		sock.shutdown(socket.SHUT_WR)
	for sock in socks:
		if sock.recv(100) != b'%d ok' % size:
			sys.exit('a connection lost bytes')
	say('done')


def sink(addr, port):
	sock = listener(addr, port)
	go = threading.Event()
	kept = []

	def read(one):
		go.wait()
		n, is_right = 0, True
		pattern = bytes(range(256)) * 257
		while True:
			data = one.recv(65536)
			if not data:
				break
			is_right = is_right and data == pattern[n % 256:n % 256 + len(data)]
			n += len(data)
		one.sendall(b'%d %s' % (n, b'ok' if is_right else b'WRONG'))
		one.close()

	def accept():
		while True:
			one = sock.accept()[0]
			thread = threading.Thread(target=read, args=(one,), daemon=True)
			kept.append(thread)
			thread.start()
	threading.Thread(target=accept, daemon=True).start()
	say('listening')
	told()
	go.set()
	told()


def source(addr, port, count, size):
	size, socks, failed = int(size), [], []
	chunk = bytes(range(256)) * 64

	def send(sock):
		try:
			left = size
			while left:
				left -= sock.send(chunk[(size - left) % 256:][:left])
			sock.shutdown(socket.SHUT_WR)
			if sock.recv(100) != b'%d ok' % size:
				failed.append('wrong answer')
		except OSError as e:
			failed.append(str(e))
	for _ in range(int(count)):
		socks.append(socket.create_connection((addr, int(port)), 10))
	threads = [threading.Thread(target=send, args=(sock,)) for sock in socks]
	for thread in threads:
		thread.start()
	say('sent')
	for thread in threads:
		thread.join()
	if failed:
		sys.exit('%d of %d failed: %s' % (len(failed), len(threads), failed[0]))
	say('answers ok')


def herd(mode, addr, port, workers):
	sock = listener(addr, port)
	if mode != 'accept':
		sock.setblocking(False)

	def answer(one):
		one.sendall(b'x')
		one.close()

	def work():
		if mode == 'accept':
			while True:
				answer(sock.accept()[0])
		poll = select.epoll()
		poll.register(sock, select.EPOLLIN | (select.EPOLLEXCLUSIVE if mode == 'exclusive' else 0))
		while True:
			poll.poll()
			try:
				one = sock.accept()[0]
				one.setblocking(True)
				answer(one)
			except BlockingIOError:
				pass
	children = []
	for _ in range(int(workers)):
		pid = os.fork()
		if not pid:
			work()
		children.append(pid)
	say('listening')
	told()
	for pid in children:
		os.kill(pid, 9)
		os.waitpid(pid, 0)


def knock(addr, port, count):
	for _ in range(int(count)):
		with socket.create_connection((addr, int(port)), 5) as sock:
			if sock.recv(1) != b'x':
				sys.exit('no answer')
		time.sleep(0.002)
	say('answered', count)


globals()[sys.argv[1]](*sys.argv[2:])
