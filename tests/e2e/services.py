#!/usr/bin/env python3
"""services.py - one program that uses two services at a time, and the peers that it talks to. For services.sh.

  services.py peer SOCKET            does what it is told over SOCKET (multiprocessing.connection): a peer, on the kernel's sockets
  services.py case WORLD NAME...     the cases, under Pronk; says on stderr what was wrong, and ends with 1
  services.py cases                  their names; victim and only_a, in a world where b's service dies or is not there, are beside them

WORLD is a JSON file: "places": {name: [address of the program there, the peer's address, its SOCKET]}, with a, b (networks of two
services) and kernel (127.0.0.1); "beyond": an address behind b's gateway; "ctl": pronkctl and the options that come before its
command, [] when nothing is under Pronk; "names": the services of a and b. A case can be run without Pronk where the
kernel has all of these addresses: that is what it must agree with.

Nothing sleeps to let time go by: a thread that has to wait in the kernel is looked at until it does.
"""
import array
import ctypes
import errno
import faulthandler
import json
import multiprocessing.connection as mpc
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

LIMIT_S = 20  # of each wait
IP_PKTINFO, IP_RECVTTL = 8, 12


class Wrong(Exception):
	pass


def check(true, *words):
	if not true:
		raise Wrong(' '.join(map(str, words)))


def same(what, got, want):
	check(got == want, '%s: %r, not %r' % (what, got, want))


def name_of(e):
	return 'timeout' if isinstance(e, (socket.timeout, TimeoutError)) and not e.errno else errno.errorcode.get(e.errno, str(e))


def error_of(call, *args):
	"""The name of the error that the call ends with, or what it returns."""
	try:
		return call(*args)
	except OSError as e:
		return name_of(e)


def recv_all(s, size):
	data = b''
	while len(data) < size:
		part = s.recv(size - len(data))
		if not part:
			break
		data += part
	return data


# --- the peer: a process on the kernel's sockets ---

class Hand:
	"""The sockets of one controller. Each method is a command; it ends with a value or an OSError."""
	def __init__(self):
		self.sockets, self.last = {}, 0

	def put(self, s):
		s.settimeout(LIMIT_S)
		self.last += 1
		self.sockets[self.last] = s
		return self.last

	def connect(self, addr, port, source=None):
		s = socket.socket()
		s.settimeout(LIMIT_S)
		try:
			if source:
				s.bind((source, 0))
			s.connect((addr, port))
		except OSError:
			s.close()
			raise
		return self.put(s), s.getsockname()

	def listen(self, addr, backlog=64):
		s = socket.socket()
		s.bind((addr, 0))
		s.listen(backlog)
		return self.put(s), s.getsockname()[1]

	def accept(self, i):
		s, peer = self.sockets[i].accept()
		return self.put(s), peer

	def udp(self, addr):
		s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		s.bind((addr, 0))
		s.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
		return self.put(s), s.getsockname()[1]

	def send(self, i, data):
		self.sockets[i].sendall(data)

	def recv(self, i, size):
		return recv_all(self.sockets[i], size)

	def echo(self, i, size):
		"""Sends back what comes, so many bytes, as it comes."""
		s, left = self.sockets[i], size
		while left:
			data = s.recv(min(left, 65536))
			if not data:
				break
			s.sendall(data)
			left -= len(data)
		return size - left

	def sendto(self, i, data, addr, port):
		self.sockets[i].sendto(data, (addr, port))

	def recvfrom(self, i):
		data, control, _, peer = self.sockets[i].recvmsg(65536, 256)
		ttl = [struct.unpack('i', c[2][:4])[0] for c in control if c[:2] == (socket.IPPROTO_IP, socket.IP_TTL)]
		return data, peer, ttl[0] if ttl else None

	def close(self, i):
		self.sockets.pop(i).close()


def peer(path):
	def serve(conn):
		hand = Hand()
		try:
			while True:
				command, args = conn.recv()
				try:
					conn.send(('ok', getattr(hand, command)(*args)))
				except OSError as e:
					conn.send(('error', name_of(e)))
		except (EOFError, ConnectionError):
			pass
		for s in hand.sockets.values():
			s.close()

	with mpc.Listener(path, 'AF_UNIX', backlog=64) as listener:
		print('ready', flush=True)
		while True:
			threading.Thread(target=serve, args=(listener.accept(),), daemon=True).start()


class Place:
	"""Where the program can be reached, and who does that."""
	def __init__(self, name, addr, peer_addr, path):
		self.name, self.addr, self.peer_addr, self.path = name, addr, peer_addr, path
		self.conn = mpc.Client(path, 'AF_UNIX')

	def again(self):
		"""The same with a connection to the peer of its own: for another thread or process."""
		return Place(self.name, self.addr, self.peer_addr, self.path)

	def ask(self, command, *args):
		self.begin(command, *args)
		return self.end()

	def begin(self, command, *args):
		self.conn.send((command, args))

	def end(self):
		check(self.conn.poll(LIMIT_S + 10), 'peer %s does not answer' % self.name)
		how, value = self.conn.recv()
		return value if how == 'ok' else 'error ' + value

	def connect(self, port, addr=None):
		got = self.ask('connect', addr or self.addr, port)
		check(isinstance(got, tuple), 'peer %s cannot connect to %s:%d: %s' % (self.name, addr or self.addr, port, got))
		return Link(self, *got)

	def listen(self):
		return self.ask('listen', self.peer_addr)

	def udp(self):
		return self.ask('udp', self.peer_addr)

	def __str__(self):
		return self.name


class Link:
	"""The peer's end of a connection."""
	def __init__(self, place, number, name):
		self.place, self.number, self.name = place, number, tuple(name)

	def send(self, data):
		same('%s: peer sends' % self.place, self.place.ask('send', self.number, data), None)

	def recv(self, size):
		return self.place.ask('recv', self.number, size)

	def close(self):
		self.place.ask('close', self.number)


def talk(s, link, what):
	"""Both ways over a connection whose far end the peer has."""
	name = '%s, %s' % (what, link.place)
	link.send(b'ask ' + link.place.name.encode())
	same(name + ': the program gets', recv_all(s, 4 + len(link.place.name)), b'ask ' + link.place.name.encode())
	s.sendall(b'answer')
	same(name + ': the peer gets', link.recv(6), b'answer')


# --- the world ---

places = {}
world = {}


def each():
	return list(places.values())


def listener(addr='', port=0, backlog=64):
	s = socket.socket()
	s.settimeout(LIMIT_S)
	s.bind((addr, port))
	s.listen(backlog)
	return s, s.getsockname()[1]


def accepted_is(s, peer, link, what):
	"""What accept(2) told of a connection."""
	name = '%s, %s' % (what, link.place)
	same(name + ': the peer\'s name', tuple(peer), link.name)
	same(name + ': getpeername', s.getpeername(), link.name)
	same(name + ': getsockname', s.getsockname()[0], link.place.addr)


def sleeping_thread(call):
	"""A thread that is in the call, and sleeps there, or has ended. done() of what is returned gives its result, or raises."""
	class Thread(threading.Thread):
		result = error = None

		def run(self):
			try:
				self.result = call()
			except BaseException as e:
				self.error = e

		def done(self):
			self.join(LIMIT_S + 10)
			check(not self.is_alive(), 'a thread still waits in', call.__name__)
			if self.error:
				raise self.error
			return self.result

	t = Thread(daemon=True)
	t.start()
	end, seen = time.monotonic() + LIMIT_S, 0
	while seen < 3 and t.is_alive():
		check(time.monotonic() < end, 'a thread does not come to rest in', call.__name__)
		try:
			with open('/proc/self/task/%d/stat' % t.native_id, encoding='ascii') as f:
				seen = seen + 1 if f.read().rpartition(') ')[2][0] == 'S' else 0
		except (FileNotFoundError, ProcessLookupError):
			break
		time.sleep(0.001)
	return t


def ctl_sockets(service):
	"""This process's sockets as pronkctl shows them: {fd: row}, of one service."""
	if not world['ctl']:
		return None
	text = subprocess.run(world['ctl'] + ['-i', world['names'][service], '--json', 'sockets'], env={}, check=True, timeout=LIMIT_S,
		stdout=subprocess.PIPE).stdout
	return {row['fd']: row for row in json.loads(text)['sockets'] if row['pid'] == os.getpid()}


def only_shown_at(s, service):
	"""The socket is the service's, and no other's."""
	for name in ('a', 'b'):
		rows = ctl_sockets(name)
		if rows is not None:
			check((s.fileno() in rows) == (name == service), 'pronkctl %s fd %d at %s' %
				('does not show' if name == service else 'shows', s.fileno(), name))


# --- cases ---

cases = {}


def case(f):
	cases[f.__name__] = f
	return f


def connected(place, way='blocking'):
	"""A connection to the peer of a place: the program's end, the peer's."""
	number, port = place.listen()
	s = socket.socket()
	if way == 'blocking':
		s.settimeout(None)
		s.connect((place.peer_addr, port))
	else:
		s.setblocking(False)
		rc = s.connect_ex((place.peer_addr, port))
		check(rc in (0, errno.EINPROGRESS), 'connect to %s: %s' % (place, os.strerror(rc)))
		if way == 'epoll':
			with select.epoll() as p:
				p.register(s, select.EPOLLOUT)
				same('epoll for a connection to %s' % place, p.poll(LIMIT_S), [(s.fileno(), select.EPOLLOUT)])
		else:
			check(select.select([], [s], [], LIMIT_S)[1], 'connection to %s: select' % place)
		same('SO_ERROR, %s' % place, s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), 0)
	s.settimeout(LIMIT_S)
	got, peer = place.ask('accept', number)
	place.ask('close', number)
	same('%s: the peer sees' % place, tuple(peer), s.getsockname())
	same('%s: from' % place, s.getsockname()[0], place.addr)
	same('%s: getpeername' % place, s.getpeername(), (place.peer_addr, port))
	return s, Link(place, got, s.getsockname())


@case
def connections_to_both():
	for way in ('blocking', 'epoll', 'select'):
		ends = [connected(place, way) for place in each()]
		for s, link in ends:
			talk(s, link, 'connect, ' + way)
			only_shown_at(s, link.place.name)
		for s, link in ends:
			link.close()
			same('the end, %s' % link.place, s.recv(1), b'')
			s.close()


@case
def beyond_both_networks():
	place = places['b']
	number, port = place.ask('listen', world['beyond'])
	s = socket.create_connection((world['beyond'], port), LIMIT_S)
	got, _ = place.ask('accept', number)
	same('from', s.getsockname()[0], place.addr)
	talk(s, Link(place, got, s.getsockname()), 'through the gateway')
	only_shown_at(s, 'b')
	u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
	number, port = place.ask('udp', world['beyond'])
	u.sendto(b'x', (world['beyond'], port))
	data, peer, _ = place.ask('recvfrom', number)
	same('datagram through the gateway', (data, peer[0]), (b'x', place.addr))


@case
def large_data_on_both_at_once():
	size, block = 3 << 20, os.urandom(1 << 16)

	def send(s):
		for _ in range(size // len(block)):
			s.sendall(block)

	threads = []
	for place in each():
		s, link = connected(place)
		place.begin('echo', link.number, size)

		def body(s=s):
			sender = threading.Thread(target=send, args=(s,), daemon=True)
			sender.start()
			for i in range(size // len(block)):
				if recv_all(s, len(block)) != block:
					return 'block %d differs' % i
			return None

		body.__name__ = 'transfer'
		threads.append((place, sleeping_thread(body)))
	for place, t in threads:
		same('transfer, %s' % place, t.done(), None)
		same('the peer echoed, %s' % place, place.end(), size)


def accept_by(way, listeners, rounds=2):
	"""A wildcard listener at the mercy of every place: one after the other, then all at once."""
	s, port = listener()
	same(way + ': getsockname', s.getsockname(), ('0.0.0.0', port))
	p = None
	if way.startswith('epoll'):
		p = select.epoll()
		flags = {'epoll': 0, 'epoll_edge': select.EPOLLET, 'epoll_oneshot': select.EPOLLONESHOT,
			'epoll_edge_oneshot': select.EPOLLET | select.EPOLLONESHOT}[way] | select.EPOLLIN
		p.register(s, flags)
		same(way + ': with nothing there', p.poll(0), [])
	if way not in ('accept', 'timeout'):
		s.setblocking(False)
		same(way + ': accept of nothing', error_of(s.accept), 'EAGAIN')
	elif way == 'accept':
		s.settimeout(None)

	def wait():
		if way == 'poll':
			q = select.poll()
			q.register(s, select.POLLIN)
			return q.poll(LIMIT_S * 1000) == [(s.fileno(), select.POLLIN)]
		if way == 'select':
			return select.select([s], [], [], LIMIT_S)[0] == [s]
		if p:
			return p.poll(LIMIT_S) == [(s.fileno(), select.EPOLLIN)]
		return True

	def take():
		check(wait(), way + ': woken by something else, or never')
		end = time.monotonic() + LIMIT_S
		while True:
			try:
				return s.accept()
			except BlockingIOError:
				# nobody else takes any: who was woken finds one
				check(way == 'nonblock' and time.monotonic() < end, way + ': nothing to accept')

	def arm():
		if 'oneshot' in way:
			same(way + ': armed no more', p.poll(0), [])
			p.modify(s, flags)

	for place in each() * rounds:
		if way == 'nonblock':
			link = place.connect(port)
			got, peer = take()
		else:
			t = sleeping_thread(take)
			link = place.connect(port)
			got, peer = t.done()
		got.settimeout(LIMIT_S)
		accepted_is(got, peer, link, way)
		talk(got, link, way)
		if listeners and place.name != 'kernel':
			only_shown_at(got, place.name)
		got.close()
		link.close()
		if way != 'accept' and way != 'timeout':
			same(way + ': nothing more', error_of(s.accept), 'EAGAIN')
		arm()
	# all three wait in their queues; with edges, what one event told of must be taken whole
	links = {link.name: link for link in (place.connect(port) for place in each() for _ in range(2))}
	while links:
		got, peer = take()
		link = links.pop(tuple(peer), None)
		check(link, way + ': a connection of nobody, %r' % (peer,))
		got.settimeout(LIMIT_S)
		accepted_is(got, peer, link, way)
		talk(got, link, way)
		got.close()
		link.close()
		if way.startswith('epoll_'):
			# until EAGAIN, as the rule for edges is
			while links:
				try:
					got, peer = s.accept()
				except BlockingIOError:
					break
				link = links.pop(tuple(peer))
				got.settimeout(LIMIT_S)
				talk(got, link, way)
				got.close()
				link.close()
			arm()
	if way != 'accept' and way != 'timeout':
		same(way + ': nothing is left', error_of(s.accept), 'EAGAIN')
	if p:
		same(way + ': no event is left', p.poll(0), [])
		p.close()
	s.close()
	for place in each():
		same('closed, %s' % place, place.ask('connect', place.addr, port), 'error ECONNREFUSED')


@case
def wildcard_blocking_accept():
	accept_by('accept', True)
	accept_by('timeout', False, 1)


@case
def wildcard_nonblocking_accept():
	accept_by('nonblock', False, 1)


@case
def wildcard_poll():
	accept_by('poll', False)


@case
def wildcard_select():
	accept_by('select', False)


@case
def wildcard_epoll():
	accept_by('epoll', False)


@case
def wildcard_epoll_edge():
	accept_by('epoll_edge', False)


@case
def wildcard_epoll_oneshot():
	accept_by('epoll_oneshot', False)
	accept_by('epoll_edge_oneshot', False, 1)


@case
def wildcard_edge_from_each():
	"""An edge that one place told of does not hide the next one's."""
	s, port = listener()
	s.setblocking(False)
	p = select.epoll()
	p.register(s, select.EPOLLIN | select.EPOLLET)
	links = []
	for place in each() * 2:
		t = sleeping_thread(lambda: p.poll(LIMIT_S))
		links.append(place.connect(port))  # those before it are still in the queue
		same('edge of %s' % place, t.done(), [(s.fileno(), select.EPOLLIN)])
	got = {s.accept()[1] for _ in links}
	same('accepted', got, {link.name for link in links})


@case
def wildcard_threads_in_accept():
	s, port = listener()
	s.settimeout(None)
	threads = [sleeping_thread(s.accept) for _ in range(6)]
	links = {link.name: link for link in (place.connect(port) for place in each() for _ in range(2))}
	for t in threads:
		got, peer = t.done()
		link = links.pop(tuple(peer))
		got.settimeout(LIMIT_S)
		accepted_is(got, peer, link, 'threads')
		talk(got, link, 'threads')
	check(not links, 'a connection was accepted twice')


@case
def wildcard_close_while_a_thread_accepts():
	"""shutdown(2) wakes it, as the kernel does."""
	s, port = listener()
	s.settimeout(None)
	t = sleeping_thread(lambda: error_of(s.accept))
	s.shutdown(socket.SHUT_RDWR)
	same('accept', t.done(), 'EINVAL')
	s.close()
	for place in each():
		same('closed, %s' % place, place.ask('connect', place.addr, port), 'error ECONNREFUSED')


@case
def wildcard_shown_at_both():
	s, port = listener()
	for name in ('a', 'b'):
		rows = ctl_sockets(name)
		if rows is not None:
			row = rows.get(s.fileno())
			check(row, 'pronkctl does not show the listener at ' + name)
			same('pronkctl, %s' % name, (row['state'], row['local']), ('LISTEN', {'address': '0.0.0.0', 'port': port}))
	s.close()
	for name in ('a', 'b'):
		rows = [row for row in (ctl_sockets(name) or {}).values() if row['local'] and row['local']['port'] == port]
		check(not rows, 'pronkctl shows a closed listener at %s: %s' % (name, rows))


@case
def listener_on_one_address():
	for mine, other in (('a', 'b'), ('b', 'a'), ('kernel', 'a')):
		s, port = listener(places[mine].addr)
		only_shown_at(s, mine)
		for place in each():
			if place.name != mine:
				same('%s, the listener is on %s' % (place, mine), place.ask('connect', place.addr, port), 'error ECONNREFUSED')
		link = places[mine].connect(port)
		got, peer = s.accept()
		accepted_is(got, peer, link, 'own address')
		talk(got, link, 'own address')
		# the port is free at the others, and taken for all of them
		second, _ = listener(places[other].addr, port)
		same('wildcard beside it', error_of(listener, '', port), 'EADDRINUSE')
		for place, l in ((places[mine], s), (places[other], second)):
			link = place.connect(port)
			got, peer = l.accept()
			accepted_is(got, peer, link, 'one port, two addresses')
		same('the same once more', error_of(listener, places[mine].addr, port), 'EADDRINUSE')
		s.close()
		second.close()
	s, port = listener()
	for place in each():
		same('%s beside the wildcard' % place, error_of(listener, place.addr, port), 'EADDRINUSE')


@case
def port_zero_is_one_port():
	for _ in range(8):
		s, port = listener()
		for place in each():
			link = place.connect(port)
			got, peer = s.accept()
			accepted_is(got, peer, link, 'port 0')
		s.close()


@case
def options_hold_on_both():
	s = socket.socket()
	s.settimeout(LIMIT_S)
	s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # before there is any side
	s.bind(('', 0))
	s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
	s.listen(8)
	s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77)  # when all listen
	for place in each():
		link = place.connect(s.getsockname()[1])
		got = s.accept()[0]
		for level, option, want in ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
				(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77), (socket.SOL_SOCKET, socket.SO_ACCEPTCONN, 0)):
			same('option %d of what was accepted, %s' % (option, place), got.getsockopt(level, option), want)
		rows = place.name != 'kernel' and ctl_sockets(place.name)
		if rows:
			told = rows[got.fileno()]['options']
			check(told.get('nodelay') and told.get('keepalive') and told.get('keepidle') == 77, 'pronkctl, %s: %s' % (place, told))
		link.close()
	same('SO_ACCEPTCONN', s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN), 1)
	u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
	u.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 33)
	u.bind(('', 0))
	for ttl in (33, 44):
		u.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
		for place in each():
			number, port = place.udp()
			u.sendto(b'ttl', (place.peer_addr, port))
			same('TTL, %s' % place, place.ask('recvfrom', number)[2], ttl)


def udp_wildcard(way):
	u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
	u.bind(('', 0))
	u.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
	u.settimeout(None if way == 'recvmsg' else LIMIT_S)
	port = u.getsockname()[1]
	p = select.epoll()
	p.register(u, select.EPOLLIN | (select.EPOLLET if way == 'epoll_edge' else 0))
	peers = {place: place.udp() for place in each()}

	def take():
		if way.startswith('epoll'):
			same(way, p.poll(LIMIT_S), [(u.fileno(), select.EPOLLIN)])
		elif way == 'poll':
			q = select.poll()
			q.register(u, select.POLLIN)
			same(way, q.poll(LIMIT_S * 1000), [(u.fileno(), select.POLLIN)])
		elif way == 'select':
			same(way, select.select([u], [], [], LIMIT_S)[0], [u])
		return u.recvmsg(2048, 256)

	def right(place, got, text):
		data, control, _, peer = got
		same('%s, %s' % (way, place), (data, peer), (text, (place.peer_addr, peers[place][1])))
		info = [c[2] for c in control if c[:2] == (socket.IPPROTO_IP, IP_PKTINFO)]
		check(info, '%s, %s: no IP_PKTINFO' % (way, place))
		same('%s, %s: asked at' % (way, place), socket.inet_ntoa(info[0][8:12]), place.addr)
		u.sendto(b'answer ' + text, peer)
		data, peer, _ = place.ask('recvfrom', peers[place][0])
		same('%s, the peer of %s gets' % (way, place), (data, tuple(peer)), (b'answer ' + text, (place.addr, port)))

	for i, place in enumerate(each() * 2):
		text = b'%d from %s' % (i, place.name.encode())
		t = sleeping_thread(take)
		place.ask('sendto', peers[place][0], text, place.addr, port)
		right(place, t.done(), text)
	if way == 'epoll_edge':
		same('no event is left', p.poll(0), [])
	# several wait at once
	for place in each():
		place.ask('sendto', peers[place][0], b'all', place.addr, port)
	waiting = {(place.peer_addr, peers[place][1]): place for place in each()}
	while waiting:
		if way != 'epoll_edge':
			got = take()
		else:
			got = u.recvmsg(2048, 256)
		place = waiting.pop(got[3], None)
		check(place, '%s: a datagram of nobody: %r' % (way, got))
		right(place, got, b'all')
	u.setblocking(False)
	same(way + ': nothing is left', error_of(u.recv, 10), 'EAGAIN')
	p.close()
	u.close()


@case
def udp_wildcard_recvmsg():
	udp_wildcard('recvmsg')


@case
def udp_wildcard_poll_select():
	udp_wildcard('poll')
	udp_wildcard('select')


@case
def udp_wildcard_epoll():
	udp_wildcard('epoll')
	udp_wildcard('epoll_edge')


def disconnect(s):
	"""connect(AF_UNSPEC), which Python has no words for. Without it the first source address stays."""
	libc = ctypes.CDLL(None, use_errno=True)
	check(libc.connect(s.fileno(), struct.pack('H14x', socket.AF_UNSPEC), 16) == 0, 'connect(AF_UNSPEC): %s' % os.strerror(ctypes.get_errno()))


@case
def udp_connected_to_each():
	open_ones = []
	for place in each():
		number, port = place.udp()
		u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		u.settimeout(LIMIT_S)
		u.connect((place.peer_addr, port))
		same('%s: from' % place, u.getsockname()[0], place.addr)
		u.send(b'hello')
		data, peer, _ = place.ask('recvfrom', number)
		same('%s: the peer gets' % place, (data, tuple(peer)), (b'hello', u.getsockname()))
		# another socket of the peer's is not heard
		other, _ = place.udp()
		place.ask('sendto', other, b'stranger', *peer)
		place.ask('sendto', number, b'back', *peer)
		same('%s: the program gets' % place, u.recv(100), b'back')
		only_shown_at(u, place.name)
		open_ones.append(u)
	# one socket, connected to one after the other
	u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
	u.settimeout(LIMIT_S)
	for place in each() * 2:
		number, port = place.udp()
		u.connect((place.peer_addr, port))
		same('again %s: from' % place, u.getsockname()[0], place.addr)
		u.send(b'once more')
		data, peer, _ = place.ask('recvfrom', number)
		same('again %s: the peer gets' % place, (data, tuple(peer)), (b'once more', u.getsockname()))
		place.ask('sendto', number, b'back', *peer)
		same('again %s: the program gets' % place, u.recv(100), b'back')
		disconnect(u)


@case
def udp_unbound_sends_to_each():
	for order in (each(), each()[::-1]):
		u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		u.settimeout(LIMIT_S)
		for place in order * 2:
			number, port = place.udp()
			u.sendto(b'x', (place.peer_addr, port))
			data, peer, _ = place.ask('recvfrom', number)
			same('%s: the peer gets' % place, (data, tuple(peer)), (b'x', (place.addr, u.getsockname()[1])))
			place.ask('sendto', number, b'y', *peer)
			same('%s: the program gets' % place, u.recvfrom(100), (b'y', (place.peer_addr, port)))
		u.close()


@case
def udp_on_one_address():
	for mine in ('a', 'b', 'kernel'):
		u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		u.settimeout(LIMIT_S)
		u.bind((places[mine].addr, 0))
		port = u.getsockname()[1]
		only_shown_at(u, mine)
		for place in each()[::-1] + [places[mine]]:
			number, from_port = place.udp()
			place.ask('sendto', number, place.name.encode(), place.addr, port)
		same('bound to %s' % mine, u.recv(100), mine.encode())
		same('bound to %s, again' % mine, u.recv(100), mine.encode())
		u.setblocking(False)
		same('bound to %s, no more' % mine, error_of(u.recv, 100), 'EAGAIN')


def sources_of_all():
	"""A listener, a pipe, a UDP socket and a connection at each place: (descriptor, how it becomes readable, how it is emptied)."""
	out = []
	s, port = listener()
	s.setblocking(False)
	u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
	u.bind(('', 0))
	r, w = os.pipe()
	out.append((r, lambda: os.write(w, b'x'), lambda: os.read(r, 1), 'a pipe'))
	for place in each():
		c, link = connected(place)
		number, _ = place.udp()
		out.append((c.fileno(), lambda link=link: link.send(b'x'), lambda c=c: c.recv(1), 'a connection to %s' % place))
		out.append((s.fileno(), lambda place=place: place.connect(port), lambda: s.accept()[0].close(), 'the listener, from %s' % place))
		out.append((u.fileno(), lambda place=place, number=number: place.ask('sendto', number, b'x', place.addr, u.getsockname()[1]),
			lambda: u.recv(10), 'the datagram socket, from %s' % place))
	return out, (s, u, r, w)


@case
def one_set_of_everything():
	sources, keep = sources_of_all()
	fds = {source[0] for source in sources}
	level, edge, ask = select.epoll(), select.epoll(), select.poll()
	for fd in fds:
		level.register(fd, select.EPOLLIN)
		edge.register(fd, select.EPOLLIN | select.EPOLLET)
		ask.register(fd, select.POLLIN)
	ways = {'epoll': lambda: level.poll(LIMIT_S), 'epoll, edges': lambda: edge.poll(LIMIT_S), 'poll': lambda: ask.poll(LIMIT_S * 1000),
		'select': lambda: [(fd, 1) for fd in select.select(list(fds), [], [], LIMIT_S)[0]]}
	for fd, fill, empty, name in sources:
		for way, wait in ways.items():
			edge.poll(0)  # edges of the rounds before
			t = sleeping_thread(wait)
			fill()
			same('%s in %s' % (name, way), t.done(), [(fd, 1)])
			empty()
			same('%s in %s, emptied' % (name, way), level.poll(0), [])
	del keep


@case
def idle_costs_nothing():
	sources, keep = sources_of_all()
	p = select.epoll()
	for fd in {source[0] for source in sources}:
		p.register(fd, select.EPOLLIN)
	t = sleeping_thread(lambda: select.select([source[0] for source in sources], [], [], 4)[0])
	before = time.process_time()
	same('epoll_wait', p.poll(2), [])
	used = time.process_time() - before
	print('%.0f ms of CPU in 2000 ms' % (used * 1000))
	check(used <= 0.1, '%.0f ms of CPU in 2000 ms, more than 5 %%' % (used * 1000))
	os.write(keep[3], b'x')
	t.done()


def child(f):
	"""A forked child that ends with 0 when f does. What is returned waits for it."""
	pid = os.fork()
	if not pid:
		status = 1
		try:
			signal.alarm(2 * LIMIT_S)  # faulthandler's thread is not here
			f()
			status = 0
		except BaseException as e:
			print('child: %r' % e, file=sys.stderr, flush=True)
		finally:
			os._exit(status)

	def wait():
		same('the child\'s status', os.waitpid(pid, 0)[1], 0)
	wait.pid = pid
	return wait


def serve_bytes(s):
	while True:
		data = s.recv(4096)
		if not data:
			break
		s.sendall(data.upper())
	s.close()


def upper(link, what):
	link.send(b'letters')
	same('%s, %s' % (what, link.place), link.recv(7), b'LETTERS')


@case
def child_serves_both():
	s, port = listener()
	ends = []
	for place in each():
		link = place.connect(port)
		ends.append((s.accept()[0], link))
		ends.append(connected(place))

	def body():
		for got, _ in ends:
			serve_bytes(got)

	wait = child(body)
	for got, _ in ends:
		got.close()
	s.close()
	for _, link in ends:
		upper(link, 'forked')
		link.close()  # the child goes on to the next
	wait()
	for place in each():
		same('closed by both, %s' % place, place.ask('connect', place.addr, port), 'error ECONNREFUSED')


@case
def workers_share_a_listener():
	s, port = listener()
	s.settimeout(None)

	def work():
		while True:
			got, _ = s.accept()
			data = got.recv(100)
			if data == b'end':
				return
			got.sendall(b'%010d' % os.getpid())
			got.recv(1)  # until the peer has gone: the next one is for somebody else
			got.close()

	workers = [child(work) for _ in range(2)]
	pids = {b'%010d' % w.pid for w in workers}
	s.close()
	for place in each() * 3:
		links = [place.connect(port) for _ in workers]
		told = set()
		for link in links:
			link.send(b'who')
		for link in links:
			told.add(link.recv(10))
		same('workers at %s' % place, told, pids)
		for link in links:
			link.close()
	for place in each()[:len(workers)]:
		link = place.connect(port)
		link.send(b'end')
		same('the end of a worker', link.recv(1), b'')
	for w in workers:
		w()


@case
def child_opens_its_own():
	"""What a child opens after fork is at both services as well."""
	connected(places['a'])

	def body():
		mine = [place.again() for place in each()]
		s, port = listener()
		for place in mine:
			talk(*connected(place), 'of the child')
			link = place.connect(port)
			got, peer = s.accept()
			accepted_is(got, peer, link, 'of the child')
			talk(got, link, 'of the child')

	child(body)()


def upper_server(listen_fd, *fds):
	"""What a program does that has got all this from another one: serves these connections, and three more."""
	s = socket.socket(fileno=int(listen_fd))
	s.setblocking(True)  # O_NONBLOCK is of the file, and whoever had it used time limits
	threads = []
	for fd in list(fds) + [None] * 3:
		got = socket.socket(fileno=int(fd)) if fd is not None else s.accept()[0]
		got.setblocking(True)
		threads.append(threading.Thread(target=serve_bytes, args=(got,)))
		threads[-1].start()
	for t in threads:
		t.join()


@case
def listener_and_connections_survive_exec():
	s, port = listener()
	s.settimeout(None)
	ends = []
	for place in each():
		link = place.connect(port)
		got = s.accept()[0]
		got.settimeout(None)
		ends.append((got, link))
	waiting = [place.connect(port) for place in each()]  # not accepted yet

	def body():
		kept = [s] + [got for got, _ in ends]
		for one in kept:
			one.set_inheritable(True)
		os.execv(sys.executable, [sys.executable, os.path.abspath(__file__), 'upper'] + [str(one.fileno()) for one in kept])

	wait = child(body)
	s.close()
	for got, _ in ends:
		got.close()
	for _, link in ends:
		upper(link, 'after exec')
		link.close()
	for link in waiting:
		upper(link, 'accepted after exec')
		link.close()
	wait()


@case
def connections_travel_to_another_process():
	left, right = socket.socketpair()
	left.settimeout(LIMIT_S)
	text = [sys.executable, os.path.abspath(__file__), 'receive', str(right.fileno())]
	other = subprocess.Popen(text, pass_fds=[right.fileno()])
	right.close()
	s, port = listener()
	ends = []
	for place in each():
		link = place.connect(port)
		ends.append((s.accept()[0], link))
		ends.append(connected(place))
	fds = [s.fileno()] + [got.fileno() for got, _ in ends]
	same('sendmsg', left.sendmsg([b'%d' % len(fds)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', fds))]), 1)
	same('the receiver has them', left.recv(4), b'have')
	for got, _ in ends:
		got.close()
	s.close()
	for _, link in ends:
		upper(link, 'passed on')
		link.close()
	for place in each():
		link = place.connect(port)
		upper(link, 'listener passed on')
		link.close()
	same('the receiver ends with', other.wait(LIMIT_S), 0)


def receive(fd):
	pipe = socket.socket(fileno=int(fd))
	data, control, _, _ = pipe.recvmsg(16, socket.CMSG_SPACE(16 * 4))
	fds = array.array('i')
	fds.frombytes(control[0][2])
	same('descriptors', len(fds), int(data))
	pipe.sendall(b'have')
	upper_server(fds[0], *fds[1:])


# --- a service that dies ---

def victim():
	"""For services.sh: says "ready", ends when standard input does; b's service is killed between."""
	kept, lost = connected(places['a']), connected(places['b'])
	s, port = listener()
	u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
	u.settimeout(LIMIT_S)
	u.bind(('', 0))
	in_recv = connected(places['b'])
	in_recv[0].settimeout(None)
	t = sleeping_thread(lambda: error_of(in_recv[0].recv, 1))
	p = select.epoll()
	p.register(lost[0], select.EPOLLIN)
	p.register(s, select.EPOLLIN)
	print('ready', flush=True)
	same('epoll, a connection of b', [(fd, bool(events & (select.EPOLLHUP | select.EPOLLERR | select.EPOLLIN)))
		for fd, events in p.poll(LIMIT_S)], [(lost[0].fileno(), True)])
	same('recv, a connection of b', error_of(lost[0].recv, 1), 'ECONNRESET')
	same('a thread in recv', t.done(), 'ECONNRESET')
	check(error_of(lost[0].send, b'x') in ('EPIPE', 'ECONNRESET'), 'send on a connection of b')
	p.unregister(lost[0])
	talk(*kept, 'the connection of a goes on')
	talk(*connected(places['a']), 'a new one')
	for place in (places['a'], places['kernel']) * 2:
		t = sleeping_thread(lambda: p.poll(LIMIT_S))
		link = place.connect(port)
		same('the listener, from %s' % place, t.done(), [(s.fileno(), select.EPOLLIN)])
		got, peer = s.accept()
		accepted_is(got, peer, link, 'listener')
		talk(got, link, 'listener')
		number, udp_port = place.udp()
		place.ask('sendto', number, b'x', place.addr, u.getsockname()[1])
		same('datagram, %s' % place, u.recvfrom(10), (b'x', (place.peer_addr, udp_port)))
		u.sendto(b'y', (place.peer_addr, udp_port))
		same('answer, %s' % place, place.ask('recvfrom', number)[0], b'y')
	same('epoll with nothing there', p.poll(0), [])
	for make in (lambda: socket.create_connection((places['b'].peer_addr, 9), LIMIT_S),
			lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', (places['b'].peer_addr, 9))):
		same('new ones to b', error_of(make), 'ENETUNREACH')
	before = time.process_time()
	same('epoll_wait', p.poll(1), [])
	used = time.process_time() - before
	check(used <= 0.05, 'it burns %.0f ms of CPU in a second' % (used * 1000))
	s2, port = listener()
	for place in (places['a'], places['kernel']):
		link = place.connect(port)
		talk(s2.accept()[0], link, 'a new listener')
	print('survived', flush=True)


def only_a():
	"""b could not be joined: everything at a and at the kernel works, what is b's is the kernel's."""
	s, port = listener()
	for place in (places['a'], places['kernel']):
		talk(*connected(place), 'connect')
		link = place.connect(port)
		got, peer = s.accept()
		accepted_is(got, peer, link, 'listener')
		talk(got, link, 'listener')
		u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		number, udp_port = place.udp()
		u.sendto(b'x', (place.peer_addr, udp_port))
		same('datagram, %s' % place, place.ask('recvfrom', number)[0], b'x')
	same('b', error_of(lambda: socket.create_connection((places['b'].peer_addr, 9), LIMIT_S)), 'ENETUNREACH')
	same('bind to b\'s address', error_of(listener, places['b'].addr), 'EADDRNOTAVAIL')


def run(path, names):
	with open(path, encoding='utf-8') as f:
		world.update(json.load(f))
	bad = 0
	for name in names:
		for place in world['places']:
			places[place] = Place(place, *world['places'][place])
		faulthandler.dump_traceback_later(4 * LIMIT_S, exit=True)
		start = time.monotonic()
		try:
			{**cases, 'victim': victim, 'only_a': only_a}[name]()
			print('passed %s %d' % (name, (time.monotonic() - start) * 1000), flush=True)
		except (Wrong, OSError) as e:
			line = e.__traceback__
			while line.tb_next:
				line = line.tb_next
			print('%s: %s (line %d)' % (name, e, line.tb_lineno), file=sys.stderr, flush=True)
			bad += 1
		faulthandler.cancel_dump_traceback_later()
		for place in places.values():
			place.conn.close()
	sys.stdout.flush()
	sys.stderr.flush()
	os._exit(bad != 0)


if __name__ == '__main__':
	commands = {'peer': peer, 'upper': upper_server, 'receive': receive, 'cases': lambda: print('\n'.join(cases)),
		'case': lambda path, *names: run(path, names or cases)}
	if len(sys.argv) < 2 or sys.argv[1] not in commands:
		sys.exit(__doc__)
	commands[sys.argv[1]](*sys.argv[2:])
