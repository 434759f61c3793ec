"""services_tcp.py - cases of services.py: connections, listeners, options."""
import os
import select
import socket
import subprocess
import threading
import time

from services_world import (accepted_is, case, check, connected, ctl_sockets, each, error_of, gone_everywhere, LIMIT_S, Link,
	listener, only_shown_at, places, recv_all, same, sleeping_thread, soon, talk, world)


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
	gone_everywhere(port)


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
	gone_everywhere(port)


@case
def wildcard_shown_at_both():
	s, port = listener()
	if world['ctl']:
		done = subprocess.run(world['ctl'] + ['-p', str(os.getpid()), 'ports'], env={}, timeout=LIMIT_S, stdout=subprocess.DEVNULL,
			stderr=subprocess.PIPE, text=True)
		own = 'process %d uses 2 services (%s): give --instance NAME in the place of --pid' % (os.getpid(), ', '.join(sorted(world['names'].values())))
		check(world['inline'] or own in done.stderr, 'pronkctl -p says: %s' % done.stderr)

	def shown():
		for name in ('a', 'b'):
			rows = ctl_sockets(name)
			if rows is not None:
				row = rows.get(fd)
				check(row, 'pronkctl does not show the listener at ' + name)
				same('pronkctl, %s' % name, (row['state'], row['local']), ('LISTEN', {'address': '0.0.0.0', 'port': port}))

	def gone():
		for name in ('a', 'b'):
			rows = [row for row in (ctl_sockets(name) or {}).values() if row['local'] and row['local']['port'] == port]
			check(not rows, 'pronkctl shows a closed listener at %s: %s' % (name, rows))

	fd = s.fileno()
	soon(shown)
	s.close()
	soon(gone)


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
		if place.name != 'kernel' and world['ctl']:
			def shown(place=place, got=got):
				told = ctl_sockets(place.name).get(got.fileno(), {'options': {}})['options']
				check(told.get('nodelay') and told.get('keepalive') and told.get('keepidle') == 77, 'pronkctl, %s: %s' % (place, told))

			soon(shown)
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
