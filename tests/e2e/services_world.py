"""services_world.py - what the cases of services.py have in common: the peers (each a process on the kernel's sockets that does what
it is told), the places where the program can be reached, and checks that name what was wrong."""
import errno
import json
import multiprocessing.connection as mpc
import os
import select
import socket
import struct
import subprocess
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

	def burst(self, addr, port, threads, count):
		"""So many threads, each so many connections one after the other, with a question and its answer in capital letters."""
		wrong = []

		def body(number):
			try:
				for i in range(count):
					text = b'letters %d %d' % (number, i)
					with socket.create_connection((addr, port), LIMIT_S) as s:
						s.sendall(text)
						got = recv_all(s, len(text))
						if got != text.upper():
							wrong.append('%r for %r' % (got, text))
			except OSError as e:
				wrong.append('%s in connection %d of thread %d' % (name_of(e), i, number))

		all_threads = [threading.Thread(target=body, args=(number,), daemon=True) for number in range(threads)]
		for t in all_threads:
			t.start()
		for t in all_threads:
			t.join()
		return wrong[:3]

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


def gone_everywhere(port):
	"""Nobody listens any more. What a process had goes soon after it, not before waitpid(2) tells of its end."""
	for place in each():
		end = time.monotonic() + LIMIT_S
		while True:
			got = place.ask('connect', place.addr, port)
			if got == 'error ECONNREFUSED':
				break
			check(time.monotonic() < end, '%s: closed, and still there: %s' % (place, got))


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


def soon(look):
	"""What a service shows follows what a program does: looks until all of it is right, and raises what is wrong at the end."""
	end = time.monotonic() + LIMIT_S
	while True:
		try:
			return look()
		except Wrong:
			if time.monotonic() > end:
				raise


def only_shown_at(s, service):
	"""The socket is the service's, and no other's."""
	def look():
		for name in ('a', 'b'):
			rows = ctl_sockets(name)
			if rows is not None:
				check((s.fileno() in rows) == (name == service), 'pronkctl %s fd %d at %s' %
					('does not show' if name == service else 'shows', s.fileno(), name))

	soon(look)


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
