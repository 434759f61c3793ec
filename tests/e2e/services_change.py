#!/usr/bin/env python3
"""services_change.py - datagram sockets that change while they are used: for services_change.sh.

  services_change.py peer SOCKET            a peer, on the kernel's sockets (services_world.py)
  services_change.py case WORLD NAME...     the cases, under Pronk; says on stderr what was wrong, and ends with 1

WORLD is as for services.py, with "only_b": the PRONK_CONFIG of a program that uses b's service alone ("" when nothing is under Pronk).
"""
import ctypes
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading

sys.dont_write_bytecode = True
import services_world  # noqa: E402
from services_world import case, check, each, error_of, LIMIT_S, places, same, sleeping_thread, world  # noqa: E402

GROUP, SO_MEMINFO, POLLERR = '239.1.2.3', 55, select.POLLERR


class Hand(services_world.Hand):
	"""What these peers can do besides."""
	def joined(self, group, addr):
		"""A socket that hears the group at the interface with this address."""
		s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		s.bind((group, 0))
		s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + socket.inet_aton(addr))
		return self.put(s), s.getsockname()[1]

	def sendto_group(self, i, data, group, port, addr):
		self.sockets[i].setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(addr))
		self.sockets[i].sendto(data, (group, port))


services_world.Hand = Hand


def udp():
	u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
	u.settimeout(LIMIT_S)
	return u


def ports():
	"""The places that a service leads to."""
	return [places['a'], places['b']]


def asked(u, place, text):
	"""Sends to the place's peer; the number of the peer's socket, and whom it answers."""
	number, port = place.udp()
	u.sendto(text, (place.peer_addr, port))
	data, peer, _ = place.ask('recvfrom', number)
	same('%s: the peer gets' % place, data, text)
	same('%s: from' % place, peer[0], place.addr)
	return number, tuple(peer)


# --- a thread sleeps for a socket that gets another service meanwhile ---

def waits_while_it_grows(way):
	for first, second in (ports(), ports()[::-1]):
		u = udp()
		number, peer = asked(u, first, b'first')
		first.ask('sendto', number, b'back', *peer)
		same('%s: the first answer' % way, u.recv(100), b'back')
		with select.epoll() as p:
			p.register(u, select.EPOLLIN | (select.EPOLLET if way == 'epoll_edge' else 0))

			def take():
				if way == 'recv':
					u.settimeout(None)
				elif way == 'poll':
					q = select.poll()
					q.register(u, select.POLLIN)
					same(way, q.poll(LIMIT_S * 1000), [(u.fileno(), select.POLLIN)])
				elif way == 'select':
					same(way, select.select([u], [], [], LIMIT_S)[0], [u])
				else:
					same(way, p.poll(LIMIT_S), [(u.fileno(), select.EPOLLIN)])
				return u.recv(100)

			if way == 'epoll_edge':
				same('what was told before', len(p.poll(0)) < 2, True)
			t = sleeping_thread(take)
			number, peer = asked(u, second, b'second')
			check(t.is_alive(), '%s: it does not wait' % way)
			second.ask('sendto', number, b'here', *peer)
			same('%s, %s then %s' % (way, first, second), t.done(), b'here')
		u.close()


@case
def a_thread_waits_while_it_grows():
	for way in ('recv', 'poll', 'select', 'epoll', 'epoll_edge'):
		waits_while_it_grows(way)


@case
def a_thread_waits_while_it_connects():
	"""The peer's endpoint becomes the first one; the thread hears from it, whichever that is."""
	for i in range(6):
		place, other = ports()[::1 if i % 2 else -1]
		u = udp()
		u.bind(('', 0))
		t = sleeping_thread(lambda: u.recv(100))
		number, port = place.udp()
		stranger, _ = other.udp()
		u.connect((place.peer_addr, port))
		other.ask('sendto', stranger, b'stranger', other.addr, u.getsockname()[1])
		place.ask('sendto', number, b'peer', *u.getsockname())
		same('connected to %s' % place, t.done(), b'peer')
		u.close()


# --- ports ---

HOLD = '''
import socket, sys
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.bind((sys.argv[1], int(sys.argv[2])))
print(u.getsockname()[1], flush=True)
sys.stdin.read()
'''


class Holder:
	"""Another program, which has a port at b's service alone."""
	def __init__(self, port):
		self.p = subprocess.Popen([sys.executable, '-c', HOLD, places['b'].addr, str(port)], stdin=subprocess.PIPE,
			stdout=subprocess.PIPE, text=True, env={**os.environ, 'PRONK_CONFIG': world['only_b']})
		self.port = int(self.p.stdout.readline() or 0)
		check(self.port, 'another program cannot have port %d at b' % port)

	def end(self):
		self.p.stdin.close()
		self.p.wait(LIMIT_S)


@case
def port_taken_at_one_service():
	holder = Holder(0)
	u = udp()
	same('bind to the wildcard', error_of(u.bind, ('', holder.port)), 'EADDRINUSE')
	# nothing of it stays at the other one
	other = udp()
	same('bind to a', error_of(other.bind, (places['a'].addr, holder.port)), None)
	other.close()
	holder.end()
	same('bind again', error_of(u.bind, ('', holder.port)), None)
	u.close()


@case
def chosen_port_taken_at_the_other():
	"""Without Pronk both are sockets of one kernel, which would not choose it."""
	if not world['only_b']:
		return
	u = udp()
	asked(u, places['a'], b'first')
	holder = Holder(u.getsockname()[1])
	number, peer = asked(u, places['b'], b'second')
	places['b'].ask('sendto', number, b'answer', *peer)
	same('the answer', u.recv(100), b'answer')
	u.close()
	u = udp()
	asked(u, places['a'], b'first')
	number, port = places['b'].udp()
	u.connect((places['b'].peer_addr, port))
	u.send(b'connected')
	data, peer, _ = places['b'].ask('recvfrom', number)
	same('connected to b', (data, tuple(peer)), (b'connected', u.getsockname()))
	u.close()
	holder.end()


# --- many ---

@case
def groups_at_each_port():
	u = udp()
	u.bind(('', 0))
	port = u.getsockname()[1]
	for place in ports():
		who = socket.inet_aton(GROUP) + socket.inet_aton(place.addr)
		same('join at %s' % place, error_of(u.setsockopt, socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, who), None)
		same('join at %s again' % place, error_of(u.setsockopt, socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, who), 'EADDRINUSE')
	for place in ports() + ports()[::-1]:
		number, from_port = place.udp()
		place.ask('sendto_group', number, b'to all', GROUP, port, place.peer_addr)
		same('from %s' % place, u.recvfrom(100), (b'to all', (place.peer_addr, from_port)))
	# left at one, heard at the other
	a, b = ports()
	u.setsockopt(socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP, socket.inet_aton(GROUP) + socket.inet_aton(a.addr))
	for place in (a, b):
		number, from_port = place.udp()
		place.ask('sendto_group', number, b'left', GROUP, port, place.peer_addr)
		place.ask('sendto', number, b'alone', place.addr, port)
		same('from %s' % place, u.recv(100), b'alone' if place == a else b'left')
	same('from b, too', u.recv(100), b'alone')
	u.close()


@case
def group_is_the_address():
	"""A socket that is bound to the group hears it wherever it has joined."""
	u = udp()
	u.bind((GROUP, 0))
	for place in ports():
		u.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP) + socket.inet_aton(place.addr))
	for place in ports() * 2:
		number, from_port = place.udp()
		place.ask('sendto_group', number, b'to all', GROUP, u.getsockname()[1], place.peer_addr)
		same('from %s' % place, u.recvfrom(100), (b'to all', (place.peer_addr, from_port)))
	u.close()


@case
def multicast_leaves_by_the_named_port():
	u = udp()
	for place in ports() * 2:
		number, port = place.ask('joined', GROUP, place.peer_addr)
		u.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(place.addr))
		u.sendto(b'to all', (GROUP, port))
		data, peer, _ = place.ask('recvfrom', number)
		same('%s gets' % place, (data, peer[0]), (b'to all', place.addr))
		place.ask('close', number)
	u.close()
	u = udp()
	for place in ports():
		number, port = place.ask('joined', GROUP, place.peer_addr)
		index = socket.if_nametoindex('pkp' if place.name == 'a' else 'pkp2')
		info = (socket.IPPROTO_IP, services_world.IP_PKTINFO, struct.pack('i8x', index))
		u.sendmsg([b'told'], [info], 0, (GROUP, port))
		data, peer, _ = place.ask('recvfrom', number)
		same('%s gets, by IP_PKTINFO' % place, (data, peer[0]), (b'told', place.addr))
		place.ask('close', number)
	u.close()


# --- errors ---

@case
def error_outlives_a_change_of_peer():
	for place, other in (ports(), ports()[::-1]):
		u = udp()
		u.bind(('', 0))
		number, port = place.udp()
		place.ask('close', number)
		u.connect((place.peer_addr, port))
		u.send(b'nobody is there')
		p = select.poll()
		p.register(u, 0)
		same('%s: poll' % place, p.poll(LIMIT_S * 1000), [(u.fileno(), POLLERR)])
		_, port = other.udp()
		u.connect((other.peer_addr, port))
		same('%s: SO_ERROR' % place, u.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), 111)
		same('%s: poll after it' % place, p.poll(0), [])
		u.close()


# --- acceptors ---

@case
def each_of_two_acceptors_gets_one():
	"""A connection at each service at once: neither is left to a thread that has taken the other."""
	s, port = services_world.listener()
	s.settimeout(None)
	got = []

	def accept():
		c, _ = s.accept()
		c.close()
		got.append(1)

	for i in range(40):
		threads = [sleeping_thread(accept) for _ in range(2)]
		for place in ports():
			place.begin('connect', place.addr, port)
		links = [services_world.Link(place, *place.end()) for place in ports()]
		for t in threads:
			t.done()
		for link in links:
			link.close()
	same('connections', len(got), 80)
	s.close()


# --- the end of a service ---

def disconnect(s):
	libc = ctypes.CDLL(None, use_errno=True)
	check(libc.connect(s.fileno(), struct.pack('H14x', socket.AF_UNSPEC), 16) == 0, 'connect(AF_UNSPEC): %s' % os.strerror(ctypes.get_errno()))


def answered(u, place, what):
	number, peer = asked(u, place, what)
	place.ask('sendto', number, b'answer to ' + what, *peer)
	same('%s: the answer' % what, u.recv(100), b'answer to ' + what)


@case
def the_service_of_the_peer_dies():
	"""b's ends under sockets of all kinds: what had its peer there hears of it, everything else goes on at a's."""
	a, b = ports()
	to_b = [udp() for _ in range(4)]
	for u in to_b:
		u.connect((b.peer_addr, b.udp()[1]))
		u.settimeout(None)
	reader, polled, member, left = to_b
	wild, first_b = udp(), udp()
	wild.bind(('', 0))
	answered(first_b, b, b'first')
	with select.epoll() as p:
		p.register(member, select.EPOLLIN)
		q = select.poll()
		q.register(polled, select.POLLIN)
		# one that has its first endpoint at a and the peer at b, too
		moved = udp()
		answered(moved, a, b'first at a')
		moved.connect((b.peer_addr, b.udp()[1]))
		moved.settimeout(None)
		sleepers = [sleeping_thread(lambda: error_of(reader.recv, 10)), sleeping_thread(lambda: q.poll(LIMIT_S * 1000)),
			sleeping_thread(lambda: p.poll(LIMIT_S)), sleeping_thread(lambda: error_of(moved.recv, 10)), sleeping_thread(lambda: wild.recv(100))]
		os.kill(world['b_pid'], signal.SIGKILL)
		same('recv', sleepers[0].done(), 'ENETDOWN')
		same('poll', sleepers[1].done(), [(polled.fileno(), select.POLLIN | POLLERR)])
		same('epoll', sleepers[2].done(), [(member.fileno(), select.EPOLLIN | select.EPOLLERR)])
		same('recv of one that has been at a', sleepers[3].done(), 'ENETDOWN')
	check(sleepers[4].is_alive(), 'a socket at both hears of it')
	number, _ = a.udp()
	a.ask('sendto', number, b'go on', a.addr, wild.getsockname()[1])
	same('at both, recv', sleepers[4].done(), b'go on')
	answered(wild, a, b'at both')
	answered(first_b, a, b'was at b first')
	number, port = a.udp()
	moved.settimeout(LIMIT_S)
	moved.connect((a.peer_addr, port))
	moved.send(b'connected to a')
	data, peer, _ = a.ask('recvfrom', number)
	same('connected to a', (data, tuple(peer)), (b'connected to a', moved.getsockname()))
	a.ask('sendto', number, b'yes', *peer)
	same('connected to a: the answer', moved.recv(100), b'yes')
	left.settimeout(LIMIT_S)
	disconnect(left)
	answered(left, a, b'dissolved')


# --- many changes at once ---

@case
def changes_under_waits():
	"""Sockets come, are watched, sent from, and go, with threads in between: nothing hangs, nothing is lost for good."""
	p = select.epoll()
	stop = threading.Event()

	def look():
		while not stop.is_set():
			p.poll(0.01)

	threads = [threading.Thread(target=look, daemon=True) for _ in range(2)]
	for t in threads:
		t.start()
	sinks = {place: place.udp() for place in ports()}
	for i in range(150):
		u = udp()
		if i % 3 == 0:
			u.bind(('', 0))
		p.register(u, select.EPOLLIN | (select.EPOLLET if i % 2 else 0))
		for place in ports():
			u.sendto(b'%d' % i, (place.peer_addr, sinks[place][1]))
		for place in ports():
			data, peer, _ = place.ask('recvfrom', sinks[place][0])
			same('%s, %d' % (place, i), data, b'%d' % i)
			place.ask('sendto', sinks[place][0], data, *peer)
		if i % 5:
			same('%d: the first answer' % i, u.recv(100), b'%d' % i)
			same('%d: the second' % i, u.recv(100), b'%d' % i)
		u.close()
	stop.set()
	for t in threads:
		t.join(LIMIT_S)
		check(not t.is_alive(), 'a thread still waits')
	# what was in the set is gone, and it works
	u = udp()
	p.register(u, select.EPOLLIN)
	number, peer = asked(u, places['b'], b'x')
	places['b'].ask('sendto', number, b'y', *peer)
	same('the set', p.poll(LIMIT_S), [(u.fileno(), select.EPOLLIN)])
	u.close()
	p.close()


if __name__ == '__main__':
	import services
	commands = {'peer': services_world.peer, 'case': services.run}
	if len(sys.argv) < 3 or sys.argv[1] not in commands:
		sys.exit(__doc__)
	commands[sys.argv[1]](*(sys.argv[2:3] + [sys.argv[3:]] if sys.argv[1] == 'case' else sys.argv[2:]))
