"""test_pronkctl.py PRONKCTL FIXTURE SOURCE [--write]: what pronkctl prints of the fixture's service, exactly.

Text is compared with tests/unit/tools/golden/NAME.txt, JSON with doc/schema/NAME.json, the export with a parser of the
format. Times are the only thing that is masked. --write makes the golden files anew: look at the difference.
"""
import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unittest

import jsonschema

import prom

PRONKCTL, FIXTURE, SOURCE = sys.argv[1:4]
WRITE = '--write' in sys.argv[4:]
GOLDEN = os.path.join(SOURCE, 'tests/unit/tools/golden')
LIMIT_S = 30
# of a vt100: with parameters, choice of a character set, keypad and cursor modes
ESCAPES = rb'\x1b\[[0-9;?]*[a-zA-Z]|\x1b[()][A-Z0-9]|\x1b[=>78]|[\x0e\x0f]'


class Service:
	"""The fixture, for one test."""

	def __init__(self, *args):
		self.folder = tempfile.TemporaryDirectory(prefix='pronk-ctl-')
		self.socket = os.path.join(self.folder.name, 's')
		self.process = subprocess.Popen([FIXTURE, self.socket, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
		assert self.process.stdout.readline() == b'ready\n'

	def end(self):
		if not self.process.stdin.closed:
			self.process.stdin.close()
			self.process.wait(LIMIT_S)
			self.process.stdout.close()
			self.folder.cleanup()

	def ctl(self, *args, rc=0):
		p = subprocess.run([PRONKCTL, '-s', self.socket, *args], capture_output=True, timeout=LIMIT_S, text=True,
			env=dict(os.environ, TZ='UTC'))
		assert p.returncode == rc, 'pronkctl %s ended with %d: %s' % (' '.join(args), p.returncode, p.stderr)
		return p.stderr if rc else p.stdout


def masked(text):
	text = re.sub(r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d', 'DATE', text)
	text = re.sub(r',version="[^"]*"', ',version="V"', text)
	text = re.sub(r'up \d+:\d\d:\d\d', 'up TIME', text)
	return re.sub(r'(DATE), \d+\.\d+ s', r'\1, N s', text)


def schema(name):
	with open(os.path.join(SOURCE, 'doc/schema', name + '.json'), encoding='utf-8') as f:
		s = json.load(f)
	jsonschema.Draft7Validator.check_schema(s)
	return s


def checked(text, name):
	value = json.loads(text)
	jsonschema.Draft7Validator(schema(name)).validate(value)
	return value


class Golden(unittest.TestCase):
	"""A service whose values stand still."""

	@classmethod
	def setUpClass(cls):
		cls.service = Service()

	@classmethod
	def tearDownClass(cls):
		cls.service.end()

	def golden(self, name, *args):
		path = os.path.join(GOLDEN, name + '.txt')
		got = masked(self.service.ctl(*args))
		if WRITE:
			with open(path, 'w', encoding='utf-8') as f:
				f.write(got)
		with open(path, encoding='utf-8') as f:
			self.assertEqual(got, f.read(), 'pronkctl %s' % ' '.join(args))

	def test_stats_leaves_zero_out(self):
		self.golden('stats', 'stats')

	def test_stats_all_prints_everything(self):
		self.golden('stats_all', 'stats', '--all')

	def test_stats_names_select_and_show_zero(self):
		self.golden('stats_names', 'stats', 'drop_', 'empty_polls')

	def test_stats_with_interval_has_rates(self):
		self.golden('stats_interval', 'stats', '--interval', '0.1s', '--count', '2')

	def test_stats_unknown_name_is_refused(self):
		why = self.service.ctl('stats', 'nonsense', rc=1)
		self.assertEqual(why, 'pronkctl: stats: no statistic\'s name begins with "nonsense" (stats --all lists them)\n')

	def test_proto(self):
		self.golden('proto', 'proto')

	def test_proto_all(self):
		self.golden('proto_all', 'proto', '--all')

	def test_proto_names_select(self):
		self.golden('proto_names', 'proto', 'udp', 'tcpIn')

	def test_proto_unknown_name_is_refused(self):
		why = self.service.ctl('proto', 'sctp', rc=1)
		self.assertIn('"sctp" is no protocol (allowed: ip, icmp, tcp, udp, arp)', why)

	def test_top_batch(self):
		self.golden('top', 'top', '--interval', '0.1', '--batch', '1')

	def test_export(self):
		self.golden('export', 'export')

	def test_commands_go_to_the_service_as_they_are(self):
		self.assertEqual(self.service.ctl('reset', 'peaks'), 'reset peaks\n')

	def test_wrong_arguments_end_with_64(self):
		for args, why in [
			(['--interval', '0', 'stats'], '"0" is no interval (allowed: 0.1 to 86400 seconds'),
			(['--interval', '1m', 'stats'], '"1m" is no interval'),
			(['--interval', 'nan', 'stats'], '"nan" is no interval'),
			(['--interval', '1', '--count', '0', 'stats'], '"0" is no count (allowed: 1 to 1000000000)'),
			(['--interval', '1', '--count', '-1', 'proto'], '"-1" is no count'),
			(['--count', '1', 'stats'], '--count needs --interval'),
			(['--interval', '1', 'config'], 'config takes no --interval'),
			(['--batch', '1', 'stats'], 'stats takes no --batch'),
			(['--json', 'top'], 'top --json needs --batch'),
			(['--json', 'export'], 'export has a format of its own'),
			(['reset'], 'reset takes the word peaks'),
			(['top', 'x'], 'too many words for top'),
		]:
			self.assertIn(why, self.service.ctl(*args, rc=64))

	def test_json_of_stats_is_what_the_fixture_has(self):
		v = checked(self.service.ctl('--json', 'stats'), 'stats')
		by_name = {s['name']: s for s in v['stats']}
		self.assertEqual((v['pid'], v['start_time_ns'], v['instance'], v['stack_count']),
			(4711, 1700000000123456789, 'fixture', 2))
		self.assertEqual(v['device'], 'tap:fix"ture\\0')
		self.assertEqual(by_name['rx_bytes']['stacks'], [64000, 123456789012])
		self.assertEqual(by_name['rx_bytes']['total'], 123456853012)
		self.assertEqual((by_name['buffers_low']['kind'], by_name['buffers_low']['total']), ('low', 2800))
		self.assertEqual((by_name['worst_turn_ns']['kind'], by_name['worst_turn_ns']['total']), ('peak', 1500000001))
		self.assertEqual(by_name['drop_rx_short']['group'], 'Lost packets')
		self.assertEqual(len(by_name), 32)
		derived = {d['name']: d for d in v['derived']}
		self.assertEqual(derived['empty_polls_percent']['total'], 75.0)
		self.assertEqual(derived['full_polls_percent']['stacks'], [0.125, 0.0])

	def test_json_of_proto_adds_up(self):
		v = checked(self.service.ctl('--json', 'proto'), 'proto')
		value = {c['name']: c['value'] for c in v['counters']}
		self.assertEqual(value['tcpInSegs'], 996)
		self.assertEqual(value['tcpOutSegs'], 1093)
		self.assertEqual(value['tcpRetransSegs'], 7)
		self.assertEqual(value['ipSystemStatsInReceives'], 1489)
		self.assertEqual(value['ipSystemStatsInNoRoutes'], 0)
		self.assertIsNone(value['icmpStatsInMsgs'])  # an older service: not known is not zero

	def test_json_of_top(self):
		lines = self.service.ctl('--json', 'top', '--batch', '2', '--interval', '0.1').splitlines()
		self.assertEqual(len(lines), 2)
		v = checked(lines[1], 'top')
		self.assertEqual([s['endpoint'] for s in v['sockets']], [0, 1, 2, 3])
		self.assertEqual(v['sockets'][2]['recv_queue'], 200)
		self.assertEqual(v['sockets'][2]['send_queue'], 100)
		self.assertIsNone(v['sockets'][3]['pid'])

	def test_export_follows_the_format(self):
		m = prom.parse(self.service.ctl('export'))
		self.assertEqual(m['pronk_rx_packets_total']['samples'][1], (
			{'instance': 'fixture', 'device': 'tap:fix"ture\\0', 'stack': '1'}, 500.0))
		self.assertEqual(prom.value_of(m, 'pronk_dropped_packets_total', reason='rx_cksum'), 7)
		self.assertEqual(prom.value_of(m, 'pronk_worst_turn_seconds', stack='0'), 1.500000001)
		self.assertEqual(m['pronk_worst_turn_seconds']['type'], 'gauge')
		self.assertEqual(prom.value_of(m, 'pronk_ip_in_bytes_total'), 70000)
		self.assertEqual(prom.value_of(m, 'pronk_start_time_seconds'), 1700000000.123456789)

	def test_parser_refuses_what_is_wrong(self):
		good = self.service.ctl('export')
		for old, new in [
			('# TYPE pronk_rx_bytes_total counter\n', ''),
			('# TYPE pronk_rx_bytes_total counter\n', '# TYPE pronk_rx_bytes_total number\n'),
			('stack="1"} 500\n', 'stack="0"} 500\n'),
			('stack="1"} 500\n', 'stack="1"} 5OO\n'),
			('stack="1"} 500\n', 'stack="1"} -5\n'),
			('stack="1"} 500\n', 'stack="1} 500\n'),
			('stack="1"} 500\n', 'stack="1"}  500\n'),
			('fix\\"ture', 'fix"ture'),
			('# HELP pronk_rx_bytes_total', '# HELP pronk_rx_packets_total'),
			('pronk_rx_polls_total', 'pronk_rx_polls'),
		]:
			self.assertIn(old, good)
			with self.assertRaises(prom.Wrong, msg='%r instead of %r' % (new, old)):
				prom.parse(good.replace(old, new))


class Moving(unittest.TestCase):
	"""A service whose counters grow."""

	def setUp(self):
		self.service = Service('moving')

	def tearDown(self):
		self.service.end()

	def lines(self, *args):
		return [json.loads(line) for line in self.service.ctl(*args).splitlines()]

	def test_rates_of_stats_are_what_grew_in_the_interval(self):
		lines = self.lines('--json', 'stats', '--interval', '0.2', '--count', '3')
		self.assertEqual(len(lines), 3)
		for before, now in zip(lines, lines[1:]):
			jsonschema.Draft7Validator(schema('stats')).validate(now)
			self.assertAlmostEqual((now['time_ns'] - before['time_ns']) / 1e9, now['interval_s'], delta=1)
			for a, b in zip(before['stats'], now['stats']):
				if b['kind'] != 'counter':
					self.assertNotIn('rate', b)
					continue
				grown = b['total'] - a['total']
				self.assertGreater(grown, 0)
				self.assertAlmostEqual(b['rate'] * now['interval_s'], grown, delta=0.01)
				self.assertAlmostEqual(sum(b['rates']), b['rate'], delta=0.01)
			rate = {s['name']: s.get('rate') for s in now['stats']}
			derived = {d['name']: d['total'] for d in now['derived']}
			self.assertAlmostEqual(derived['busy_percent'], rate['busy_ns'] / 2 / 1e9 * 100, delta=0.001)
			self.assertAlmostEqual(derived['full_polls_percent'], rate['rx_full_polls'] / rate['rx_polls'] * 100,
				delta=0.01)

	def test_rates_of_proto_are_what_grew_in_the_interval(self):
		before, now = self.lines('--json', 'proto', 'tcp', '--interval', '0.2', '--count', '2')
		jsonschema.Draft7Validator(schema('proto')).validate(now)
		grown = {c['name']: c['value'] - old['value'] for c, old in zip(now['counters'], before['counters'])
			if c['value'] is not None}
		rate = {c['name']: c.get('rate') for c in now['counters']}
		self.assertGreater(grown['tcpInSegs'], 0)
		self.assertAlmostEqual(rate['tcpInSegs'] * now['interval_s'], grown['tcpInSegs'], delta=0.01)
		self.assertIsNone(rate['tcpCurrEstab'])

	def test_top_names_the_busiest_socket_first(self):
		_, now = self.lines('--json', 'top', '--batch', '2', '--interval', '0.2')
		first = now['sockets'][0]
		self.assertEqual((first['endpoint'], first['pid'], first['program'], first['fd']), (1, 1234, 'my_server', 6))
		self.assertGreater(first['rx_bytes'], 0)
		self.assertGreater(first['tx_bytes'], first['rx_bytes'])
		self.assertEqual([s['rx_bytes'] for s in now['sockets'][1:]], [0, 0, 0])
		self.assertGreater(now['stacks'][1]['rx_packets'], 0)

	def test_the_end_of_the_service_ends_an_interval(self):
		p = subprocess.Popen([PRONKCTL, '-s', self.service.socket, 'stats', '--interval', '0.1'],
			stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
		self.assertTrue(p.stdout.readline().startswith('--- '))
		self.service.end()
		_, why = p.communicate(timeout=LIMIT_S)
		self.assertEqual((p.returncode, why), (1, 'pronkctl: the service has ended\n'))


class Screen(unittest.TestCase):
	"""top on a terminal."""

	def setUp(self):
		self.service = Service('moving')
		self.master, slave = pty.openpty()
		self.size(30, 120)
		self.text = b''
		self.process = subprocess.Popen([PRONKCTL, '-s', self.service.socket, 'top', '--interval', '0.2'],
			stdin=slave, stdout=slave, stderr=slave, env=dict(os.environ, TERM='vt100', TZ='UTC'),
			preexec_fn=self.take_terminal(slave))
		os.close(slave)

	@staticmethod
	def take_terminal(slave):
		def take():
			os.setsid()
			fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
		return take

	def tearDown(self):
		if self.process.poll() is None:
			self.process.kill()
			self.process.wait()
		os.close(self.master)
		self.service.end()

	def size(self, rows, columns):
		fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack('HHHH', rows, columns, 0, 0))

	def until(self, what):
		"""Reads until it has been on the screen; what was read before is forgotten."""
		end = time.monotonic() + LIMIT_S
		while not re.search(b'(?s)' + what, re.sub(ESCAPES, b'', self.text)):
			left = end - time.monotonic()
			self.assertTrue(left > 0 and select.select([self.master], [], [], left)[0],
				'no %r on the screen: %r' % (what, self.text[-2000:]))
			try:
				self.text += os.read(self.master, 65536)
			except OSError:
				self.fail('ended before %r was on the screen: %r' % (what, self.text[-2000:]))
		self.text = b''

	def key(self, key):
		os.write(self.master, key)

	def test_keys(self):
		self.until(rb'STACK +BUSY%.*PROGRAM.*my_server.*q quit.*by bytes/s')
		self.key(b'h')
		self.until(rb'this page; any key leaves it')
		self.key(b'x')
		self.until(rb'PROGRAM')
		self.key(b'>')
		self.until(rb'received/s')
		self.key(b'<<')
		self.until(rb'pid')
		self.key(b'r')
		self.until(rb'reversed')
		self.size(12, 60)
		self.until(rb'fixture: tap.*q quit')
		self.key(b'q')
		self.assertEqual(self.process.wait(LIMIT_S), 0)

	def test_the_end_of_the_service_gives_the_terminal_back(self):
		self.until(rb'my_server')
		self.service.end()
		self.until(rb'pronkctl: the service has ended')
		self.assertEqual(self.process.wait(LIMIT_S), 1)

	def test_without_a_terminal_it_says_what_to_do(self):
		self.assertEqual(self.service.ctl('top', rc=1),
			'pronkctl: top needs a terminal; top --batch N prints N times as text\n')


if __name__ == '__main__':
	unittest.main(argv=sys.argv[:1], verbosity=2)
