#!/usr/bin/env python3
"""operate.py - known traffic for operate_stats.sh, and the comparison of counters. Ends with 0, or says what was wrong.

  traffic ADDR OPEN CLOSED   at a Redis server's port OPEN: 10 connections with 20 requests each, one of them reset; at
                             port CLOSED, which nobody has: 3 connection attempts and 4 datagrams
  connects ADDR OPEN CLOSED  5 connections to OPEN that end in order, 2 attempts at CLOSED
  mirror BEFORE AFTER        folders with proto.json (pronkctl --json proto) of one end and snmp (/proc/net/snmp) of the
                             other: what was counted between must agree
  lines FILE                 output of pronkctl --json --interval: packets came in every interval
  top FILE                   output of pronkctl --json top during a load of redis-server
"""
import json
import socket
import struct
import sys


def fail(text):
	sys.exit('operate.py %s: %s' % (' '.join(sys.argv[1:]), text))


def refused(addr, port):
	s = socket.socket()
	s.settimeout(10)
	try:
		s.connect((addr, port))
		fail('port %d takes connections' % port)
	except ConnectionRefusedError:
		s.close()


def traffic(addr, opened, closed):
	conns = [socket.create_connection((addr, int(opened)), 10) for _ in range(10)]
	for _ in range(20):
		for s in conns:
			s.sendall(b'PING\r\n')
			if s.recv(7) != b'+PONG\r\n':
				fail('no answer')
	conns[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
	conns[0].close()
	for s in conns[1:]:
		s.sendall(b'QUIT\r\n')
		while s.recv(100):
			pass
		s.close()
	for _ in range(3):
		refused(addr, int(closed))
	for _ in range(4):
		s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		s.settimeout(10)
		s.connect((addr, int(closed)))
		s.send(b'x' * 100)
		try:
			s.recv(100)
			fail('somebody answers at the closed port')
		except ConnectionRefusedError:
			s.close()


def connects(addr, opened, closed):
	for _ in range(5):
		s = socket.create_connection((addr, int(opened)), 10)
		s.sendall(b'x' * 1000)
		s.shutdown(socket.SHUT_WR)
		while s.recv(100):
			pass
		s.close()
	for _ in range(2):
		refused(addr, int(closed))


def snmp_read(path):
	lines = open(path, encoding='ascii').read().splitlines()
	out = {}
	for names, values in zip(lines[::2], lines[1::2]):
		protocol = names.split(':')[0]
		for name, value in zip(names.split()[1:], values.split()[1:]):
			out[protocol + name] = int(value)
	return out


def grown(before, after, read):
	a, b = read(before), read(after)
	return {k: b[k] - a.get(k, 0) for k in b if b[k] is not None}


def mirror(before, after):
	ours = grown(before + '/proto.json', after + '/proto.json',
		lambda f: {c['name']: c['value'] for c in json.load(open(f))['counters']})
	kernel = grown(before + '/snmp', after + '/snmp', snmp_read)
	wrong = []

	def same(text, p, k):
		if p != k:
			wrong.append('%s: %d here, %d there' % (text, p, k))

	def known(name, want):
		same(name, ours[name], want)

	same('TCP segments received', ours['tcpInSegs'], kernel['TcpOutSegs'] + kernel['TcpRetransSegs'])
	same('TCP segments sent', ours['tcpOutSegs'] + ours['tcpRetransSegs'], kernel['TcpInSegs'])
	same('resets sent', ours['tcpOutRsts'], 3)
	same('connections taken', ours['tcpPassiveOpens'], kernel['TcpActiveOpens'] - 3)
	same('connections opened', ours['tcpActiveOpens'], kernel['TcpPassiveOpens'] + 2)
	same('kernel\'s failed attempts', 3, kernel['TcpAttemptFails'])
	known('tcpAttemptFails', 2)
	known('tcpEstabResets', 1)
	known('tcpCurrEstab', 0)
	known('tcpInErrs', 0)
	same('ICMP received', ours['icmpStatsInMsgs'], kernel['IcmpOutMsgs'])
	same('ICMP sent', ours['icmpStatsOutMsgs'], kernel['IcmpInMsgs'])
	same('echo requests', ours['icmpMsgStatsInPkts.8'], kernel['IcmpOutEchos'])
	same('echo replies', ours['icmpMsgStatsOutPkts.0'], kernel['IcmpInEchoReps'])
	same('unreachables sent', ours['icmpMsgStatsOutPkts.3'], kernel['IcmpInDestUnreachs'])
	known('icmpMsgStatsInPkts.8', 5)
	known('icmpMsgStatsOutPkts.3', 4)
	same('datagrams for nobody', ours['udpNoPorts'], kernel['UdpOutDatagrams'])
	same('IP packets received', ours['ipSystemStatsInReceives'], kernel['IpOutRequests'])
	same('IP packets sent', ours['ipSystemStatsOutTransmits'], kernel['IpInReceives'])
	same('IP packets delivered', ours['ipSystemStatsInDelivers'], ours['ipSystemStatsInReceives'])
	if ours['tcpInSegs'] < 200 or ours['tcpOutSegs'] < 200:
		wrong.append('no traffic at all: %s' % ours)
	if wrong:
		fail('; '.join(wrong))


def lines(path):
	n = 0
	for line in open(path, encoding='utf-8'):
		v = json.loads(line)
		rate = {s['name']: s.get('rate') for s in v['stats']}
		busy = [d['total'] for d in v['derived'] if d['name'] == 'busy_percent'][0]
		if not (rate['rx_packets'] > 0 and rate['tx_bytes'] > 0 and busy > 0):
			fail('rx_packets %s/s, tx_bytes %s/s, busy %s %%' % (rate['rx_packets'], rate['tx_bytes'], busy))
		n += 1
	if n != 3:
		fail('%d lines' % n)


def top(path):
	v = [json.loads(line) for line in open(path, encoding='utf-8')][-1]
	first = v['sockets'][0]
	if not (first['program'] == 'redis-server' and first['rx_bytes'] > 0 and first['tx_bytes'] > 0):
		fail('the busiest socket is %s' % first)
	if not (v['stacks'][0]['rx_packets'] > 0 and v['stacks'][0]['established'] >= 20):
		fail('stack 0: %s' % v['stacks'])


commands = {f.__name__: f for f in (traffic, connects, mirror, lines, top)}
if len(sys.argv) < 2 or sys.argv[1] not in commands:
	sys.exit(__doc__.strip())
commands[sys.argv[1]](*sys.argv[2:])
