"""services_udp.py - cases of services.py: datagrams."""
import ctypes
import os
import select
import socket
import struct

from services_world import (case, check, connected, each, error_of, IP_PKTINFO, LIMIT_S, only_shown_at, places, same,
	sleeping_thread)


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


def udp_automatic_port_is_everywhere():
	"""The port that the first datagram brings is the socket's at every address. Not so under Pronk, see limits.md: to be named by hand."""
	for first in each():
		u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		u.settimeout(LIMIT_S)
		number, port = first.udp()
		u.sendto(b'x', (first.peer_addr, port))
		same('the peer of %s gets' % first, first.ask('recvfrom', number)[0], b'x')
		for place in each():
			number, port = place.udp()
			place.ask('sendto', number, b'y', place.addr, u.getsockname()[1])
			same('sent to %s, heard from %s' % (first, place), u.recvfrom(10), (b'y', (place.peer_addr, port)))
