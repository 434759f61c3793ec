#!/usr/bin/env python3
"""services_death.py - more cases of services.py: the first of two services dies, or has no room for a child. For services_death.sh.

  services_death.py case WORLD NAME   one case, under Pronk, with b's service as the first
  services_death.py upper ..., receive ...   the programs that sockets are handed to

Where b's service is to die, a case says "ready", and goes on when a line comes in. It is dead then, and Pronk has not noticed.
"""
import array
import os
import socket
import sys

sys.dont_write_bytecode = True
import services  # noqa: E402
from services_proc import child, receive, receiver, serve_bytes, upper, upper_server  # noqa: E402
from services_world import accepted_is, case, check, connected, error_of, LIMIT_S, listener, places, same, talk  # noqa: E402


def b_dies():
	print('ready', flush=True)
	check(sys.stdin.readline(), 'nobody says that b has died')


def left():
	return places['a'], places['kernel']


def serves(s, port, what):
	for place in left():
		link = place.connect(port)
		got, peer = s.accept()
		accepted_is(got, peer, link, what)
		talk(got, link, what)


@case
def listens_where_it_can():
	"""Nobody knows yet that the first service has died: the others have the listener all the same."""
	kept = connected(places['b'])
	b_dies()
	s, port = listener()
	serves(s, port, 'a new listener')
	same('recv', error_of(kept[0].recv, 1), 'ECONNRESET')


@case
def connects_by_the_kernel():
	"""The connect that finds out is the kernel's already, which has no route here."""
	kept = connected(places['b'])
	b_dies()
	with socket.socket() as s:
		s.settimeout(LIMIT_S)
		same('connect', error_of(s.connect, (places['b'].peer_addr, 9)), 'ENETUNREACH')
	same('recv', error_of(kept[0].recv, 1), 'ECONNRESET')


@case
def listens_again():
	s, port = listener()
	b_dies()
	s.listen(7)
	serves(s, port, 'another backlog')
	s.shutdown(socket.SHUT_RDWR)
	for place in left():
		same('shut down, %s' % place, place.ask('connect', place.addr, port), 'error ECONNREFUSED')
	s.listen(8)
	serves(s, s.getsockname()[1], 'again after shutdown')  # the kernel has let the port go that it had chosen


def handed_over():
	"""A listener at both and a connection to a, and b dies; a connection to b goes with them."""
	s, port = listener()
	s.settimeout(None)
	kept, lost = connected(places['a']), connected(places['b'])
	kept[0].settimeout(None)
	b_dies()
	return s, port, kept, lost


def all_is_well(port, kept, what):
	upper(kept[1], what)
	kept[1].close()
	for place in left() + (places['a'],):
		link = place.connect(port)
		upper(link, what + ': the listener')
		link.close()


@case
def survives_exec():
	s, port, kept, lost = handed_over()

	def body():
		for one in (s, kept[0]):
			one.set_inheritable(True)
		os.execv(sys.executable, [sys.executable, os.path.abspath(sys.argv[0]), 'upper', str(s.fileno()), str(kept[0].fileno())])

	wait = child(body)
	s.close()
	kept[0].close()
	all_is_well(port, kept, 'after exec')
	wait()


def rights(*sockets):
	return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [s.fileno() for s in sockets]))]


@case
def travels():
	send, end = receiver()
	s, port, kept, lost = handed_over()
	send(s, kept[0])
	all_is_well(port, kept, 'passed on')
	end()


def take(pipe):
	fds = array.array('i')
	fds.frombytes(pipe.recvmsg(16, socket.CMSG_SPACE(4))[1][0][2])
	return socket.socket(fileno=fds[0])


@case
def comes_home():
	"""A socket is one socket, however it comes back: closing one number does not end it."""
	left_end, right_end = socket.socketpair()
	s, port, kept, lost = handed_over()
	same('sendmsg of what was lost', left_end.sendmsg([b'x'], rights(lost[0])), 1)
	take(right_end).close()
	for one in (s, kept[0]):
		left_end.sendmsg([b'x'], rights(one))
	s2, back = take(right_end), take(right_end)
	kept[0].close()
	talk(back, kept[1], 'came home')
	s2.close()
	serves(s, port, 'a copy came home, and was closed')
	s.settimeout(LIMIT_S)
	s.close()
	for place in left():
		same('closed, %s' % place, place.ask('connect', place.addr, port), 'error ECONNREFUSED')


@case
def dies_on_the_way():
	"""A listener waits in a message while its first service dies."""
	left_end, right_end = socket.socketpair()
	s, port = listener()
	lost = connected(places['b'])
	same('sendmsg', left_end.sendmsg([b'x'], rights(s)), 1)
	s.close()
	b_dies()
	same('recv', error_of(lost[0].recv, 1), 'ECONNRESET')
	s = take(right_end)
	s.setblocking(True)
	serves(s, port, 'its service died on the way')


@case
def strict_refuses_what_is_lost():
	"""With strict in the first file nothing that would have gone to its service goes elsewhere."""
	lost = connected(places['b'])
	b_dies()
	same('recv', error_of(lost[0].recv, 1), 'ECONNRESET')
	for addr in (places['b'].peer_addr, '192.0.2.1'):  # behind its gateway
		same('connect to %s' % addr, error_of(socket.create_connection, (addr, 9), LIMIT_S), 'ENETDOWN')
	talk(*connected(places['a']), 'a goes on')


@case
def child_without_room_at_b():
	"""b's service takes no further process: what is there ends in the child, and what is elsewhere goes on."""
	s, port = listener()
	kept, lost = connected(places['a']), connected(places['b'])

	def body():
		same('recv of a connection to b', error_of(lost[0].recv, 1), 'ECONNRESET')
		for _ in left():
			serve_bytes(s.accept()[0])
		serve_bytes(kept[0])

	wait = child(body)
	for place in left():
		link = place.connect(port)
		upper(link, 'the child\'s listener')
		link.close()
	kept[0].close()
	upper(kept[1], 'the child\'s connection')
	kept[1].close()
	wait()
	talk(*lost, 'the parent\'s connection to b')
	link = places['b'].connect(port)
	talk(s.accept()[0], link, 'the parent\'s listener at b')


@case
def buffers_are_the_services_own():
	sizes = {}
	for place in (places['a'], places['b']):
		number, port = place.listen()
		plain, other = socket.socket(), socket.socket()
		other.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
		for s in (plain, other):
			s.connect((place.peer_addr, port))
		sizes[place.name] = [s.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) for s in (plain, other)]
	check(sizes['a'][0] != sizes['b'][0], 'both have', sizes['a'][0])
	for name, (plain, other) in sizes.items():
		same('%s: SO_RCVBUF where another option was set' % name, other, plain)


@case
def each_is_asked_in_turn():
	s, port = listener(backlog=16)
	s.setblocking(False)
	waiting = [place.connect(port) for place in (places['a'], places['b']) for _ in range(8)]
	names = [link.name for link in waiting]
	first = set()
	for _ in range(4):
		while True:
			got = error_of(s.accept)
			if got != 'EAGAIN':
				break
		first.add(names.index(got[1]) // 8)
		got[0].close()
	same('of the first four, from how many places', len(first), 2)
	del waiting


if __name__ == '__main__':
	commands = {'case': lambda path, name: services.run(path, [name]), 'upper': upper_server, 'receive': receive}
	if len(sys.argv) < 2 or sys.argv[1] not in commands:
		sys.exit(__doc__)
	commands[sys.argv[1]](*sys.argv[2:])
