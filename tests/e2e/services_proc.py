"""services_proc.py - cases of services.py: one set of everything, processes, a service that dies."""
import array
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time

from services_world import (accepted_is, case, check, connected, each, error_of, gone_everywhere, LIMIT_S, listener,
	places, same, sleeping_thread, talk)


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


def burst_on(port):
	for place in each():
		place.begin('burst', place.addr, port, 4, 25)
	for place in each():
		same('burst, %s' % place, place.end(), [])


def upper_loop(s, stop, flags):
	"""One of several that serve a listener, each with a set of its own."""
	conns = {}
	p = select.epoll()
	p.register(s, select.EPOLLIN | flags)
	p.register(stop, select.EPOLLIN)
	while True:
		for fd, _ in p.poll():
			if fd == stop:
				p.close()
				return
			if fd == s.fileno():
				try:
					while True:
						c = s.accept()[0]
						c.setblocking(False)
						conns[c.fileno()] = c
						p.register(c, select.EPOLLIN | (flags & select.EPOLLET))
				except BlockingIOError:
					continue
			try:
				while True:
					data = conns[fd].recv(4096)
					if not data:
						p.unregister(fd)
						conns.pop(fd).close()
						break
					conns[fd].sendall(data.upper())
			except BlockingIOError:
				continue


@case
def burst_to_threads_with_sets_of_their_own():
	for flags in (0, select.EPOLLEXCLUSIVE, select.EPOLLET):
		s, port = listener()
		s.setblocking(False)
		r, w = os.pipe()
		threads = [sleeping_thread(lambda: upper_loop(s, r, flags)) for _ in range(3)]
		burst_on(port)
		os.write(w, b'x')
		for t in threads:
			t.done()
		s.close()


@case
def burst_to_workers():
	s, port = listener()
	s.setblocking(False)
	r, w = os.pipe()
	workers = [child(lambda: upper_loop(s, r, select.EPOLLEXCLUSIVE)) for _ in range(2)]
	burst_on(port)
	os.write(w, b'x')
	for worker in workers:
		worker()


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
	gone_everywhere(port)


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


ACCEPTS = 3


def upper_server(listen_fd, *fds):
	"""What a program does that has got all this from another one: serves these connections, and ACCEPTS more."""
	s = socket.socket(fileno=int(listen_fd))
	s.setblocking(True)  # O_NONBLOCK is of the file, and whoever had it used time limits
	threads = []
	for fd in list(fds) + [None] * ACCEPTS:
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
		os.execv(sys.executable, [sys.executable, os.path.abspath(sys.argv[0]), 'upper'] + [str(one.fileno()) for one in kept])

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


def receiver():
	"""Another process: (what to send descriptors with, what ends when it has served them)."""
	left, right = socket.socketpair()
	left.settimeout(LIMIT_S)
	other = subprocess.Popen([sys.executable, os.path.abspath(sys.argv[0]), 'receive', str(right.fileno())], pass_fds=[right.fileno()])
	right.close()

	def send(*sockets):
		fds = array.array('i', [s.fileno() for s in sockets])
		left.sendmsg([b'%d' % len(fds)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
		same('the receiver has them', left.recv(4), b'have')
		for s in sockets:
			s.close()

	def end():
		left.close()  # which it waits for
		same('the receiver ends with', other.wait(LIMIT_S), 0)
	return send, end


def receive(fd):
	pipe = socket.socket(fileno=int(fd))
	data, control, _, _ = pipe.recvmsg(16, socket.CMSG_SPACE(16 * 4))
	fds = array.array('i')
	fds.frombytes(control[0][2])
	same('descriptors', len(fds), int(data))
	threading.Thread(target=upper_server, args=fds, daemon=True).start()
	pipe.sendall(b'have')
	same('the end', pipe.recv(1), b'')
	os._exit(0)


@case
def connections_travel_to_another_process():
	send, end = receiver()
	s, port = listener()
	ends = []
	for place in each():
		link = place.connect(port)
		ends.append((s.accept()[0], link))
		ends.append(connected(place))
	send(listener('127.0.0.1')[0], *[got for got, _ in ends])
	for _, link in ends:
		upper(link, 'passed on')
		link.close()
	end()


@case
def listener_travels_with_all_its_places():
	send, end = receiver()
	s, port = listener()
	kept = s.dup()
	send(s)
	for place in each():  # ACCEPTS
		link = place.connect(port)
		upper(link, 'listener passed on')
		link.close()
	# the one that was kept is the same
	kept.settimeout(LIMIT_S)
	for place in each():
		link = place.connect(port)
		got, peer = kept.accept()
		accepted_is(got, peer, link, 'kept')
	kept.close()
	end()
	gone_everywhere(port)


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
