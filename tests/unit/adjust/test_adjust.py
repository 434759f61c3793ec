"""test_adjust.py PRONKCTL FIXTURE SOURCE [--write]: what pronkctl latency, inject, set and config print, exactly.

The commands below are given to the fixture's service one after the other. What they print is compared with golden.txt,
JSON with doc/schema/NAME.json, too. --write makes golden.txt anew: look at the difference.
"""
import json
import os
import re
import subprocess
import sys
import tempfile
import xml.dom.minidom

import jsonschema

PRONKCTL, FIXTURE, SOURCE = sys.argv[1:4]
GOLDEN = os.path.join(SOURCE, 'tests/unit/adjust/golden.txt')
LIMIT_S = 60

# command, name of the schema (of JSON), pattern of the lines to compare (None: all)
COMMANDS = [
	('latency', None, None),
	('latency --all', None, None),
	('--json latency', 'latency', None),
	('latency --plot', None, r'^(?!  <)|^  < +(8\.2|16\.4|32\.8|65\.5|131\.1) us'),
	('latency --interval 0', None, r'^pronkctl'),
	('--json latency --interval 0.1 --count 1', 'latency', None),
	('latency --interval 0.1 --count 2', None, r'^---|^Times|^rx '),
	('latency --plot --interval 0.1 --count 1', None, r'^---|^rx:'),
	('latency on --plot', None, r'^pronkctl'),
	('inject --svg x', None, r'^pronkctl'),
	('latency --plot --json', None, r'^pronkctl'),
	('latency on off', None, r'^pronkctl'),
	('latency maybe', None, None),
	('inject', None, None),
	('--json inject', 'inject', None),
	('inject rx loss 1% delay 5ms jitter 1500us tx dup 0.5% reorder 2% corrupt 0.0001% seed 42', None, None),
	('inject', None, None),
	('--json inject', 'inject', None),
	('inject tx loss 100% delay 2s seed 18446744073709551615', None, None),
	('inject', None, r'^inject'),
	('inject rx loss', None, None),
	('inject rx loss delay 5ms', None, None),
	('inject tx delay', None, None),
	('inject tx jitter 5ms', None, None),
	('inject rx loss one', None, None),
	('inject rx loss 1', None, None),
	('inject rx loss 1.%', None, None),
	('inject rx loss 1.00001%', None, None),
	('inject rx loss 100.5%', None, None),
	('inject rx delay 5', None, None),
	('inject rx delay 10001ms', None, None),
	('inject rx delay 99999999999999999999us', None, None),
	('inject rx delay 1ms jitter 2ms', None, None),
	('inject rx loss 1% loss 1%', None, None),
	('inject rx loss 1% rx dup 1%', None, None),
	('inject rx lost 1%', None, None),
	('inject rx', None, None),
	('inject rx tx loss 1%', None, None),
	('inject seed 1', None, None),
	('inject rx loss 1% seed', None, None),
	('inject rx loss 1% seed 18446744073709551616', None, None),
	('inject rx loss 1% seed 1 seed 1', None, None),
	('inject on', None, None),
	('inject off off', None, None),
	('inject', None, r'^inject'),
	('--json inject rx delay 5ms', 'inject', r'words|^  "rx"'),
	('--json inject rx lost 1%', None, None),
	('--json inject off', 'inject', None),
	('inject off', None, None),
	('inject', None, r'^inject'),
	('set', None, r'^pronkctl'),
	('set linger_s', None, r'^pronkctl'),
	('set linger 5', None, None),
	('set device tap:x', None, None),
	('set linger_s 86401', None, None),
	('set linger_s 5', None, None),
	('set profile throughput', None, None),
	('set strict on', None, None),
	('--json set linger_s 7', 'set', None),
	('--json set profile balanced', 'set', None),
	('--json set strict on', 'set', None),
	('--json set linger_s many', None, None),
	('set linger_s 5', None, None),
	('set profile throughput', None, None),
	('set log_level loud', None, None),
	('set log_level error', None, None),
	('config', None, r'^(linger_s|profile|stack_spin_us|app_spin_us|strict|log_level|device) = '),
	('--json config', 'config', r'^  "(linger_s|profile|stack_spin_us|strict|device)": '),
	('latency off', None, None),
	('latency on', None, None),
	('latency', None, None),
	('--json latency', 'latency', r'is_on|"rx"'),
	('latency reset', None, None),
	('latency off', None, None),
	('latency', None, r'^Times'),
	('--json latency on', 'latency-change', None),
	('--json latency on', 'latency-change', None),
	('--json latency reset', 'latency-change', None),
	('--json latency off', 'latency-change', None),
	('--json latency maybe', None, None),
	('reset peaks', None, None),
	('--json reset peaks', 'reset', None),
	('--json reset all', None, None),
]


def run(words, folder):
	"""(exit status, standard output, standard error), with what differs from run to run masked"""
	done = subprocess.run([PRONKCTL, '-s', folder + '/fixture.sock'] + words.split(), capture_output=True, text=True,
		timeout=LIMIT_S, env=dict(os.environ, TZ='UTC', LC_ALL='C'))
	return done.returncode, done.stdout, done.stderr


def mask(text):
	text = re.sub(r'counted since 20(?!23-11-14 22:13:20)[-0-9: ]*', 'counted since TIME', text)
	text = re.sub(r'"since_ns": (?!1700000000000000000)[0-9]{19}', '"since_ns": TIME', text)
	text = re.sub(r'"time_ns": [0-9]{19}, "interval_s": [0-9]+\.[0-9]{6}', '"time_ns": TIME, "interval_s": S', text)
	text = re.sub(r'^--- 20[-0-9]+ [0-9:]+, [0-9]+\.[0-9]{3} s$', '--- TIME, S', text, flags=re.M)
	text = re.sub(r'"seed": [0-9]{6,}', '"seed": SEED', re.sub(r' seed [0-9]{6,}"', ' seed SEED"', text))
	return re.sub(r'^Try .*\n', '', text, flags=re.M)


def block(words, schema, pattern, folder):
	"""One command as it stands in golden.txt"""
	code, out, err = run(words, folder)
	if schema:
		value = json.loads(out)
		with open(os.path.join(SOURCE, 'doc/schema', schema + '.json'), encoding='utf-8') as file:
			jsonschema.Draft7Validator(json.load(file)).validate(value)
	lines = (out + err).splitlines()
	if pattern:
		lines = [line for line in lines if re.search(pattern, line)]
	return '$ pronkctl %s\n%s%s\n' % (words, mask(''.join(line + '\n' for line in lines)),
		'[%d]\n' % code if code else '')


def svg_check(folder):
	page = folder + '/plot.svg'
	code, out, err = run('latency --svg ' + page, folder)
	assert (code, out, err) == (0, '', ''), (code, out, err)
	drawn = xml.dom.minidom.parse(page)
	# all stages but the one without values
	assert len(drawn.getElementsByTagName('polyline')) == 6, open(page).read()
	for line in drawn.getElementsByTagName('polyline'):
		points = [tuple(map(float, p.split(','))) for p in line.getAttribute('points').split()]
		# both axes only go on, and nothing leaves the frame
		assert len(points) > 10 and points == sorted(points, key=lambda p: (p[0], -p[1])), points
		assert all(80 <= x <= 650 and 40 <= y <= 410 for x, y in points), points
	code, out, err = run('latency --svg /nonexistent/x.svg', folder)
	assert code == 1 and err == 'pronkctl: latency: cannot write /nonexistent/x.svg: No such file or directory\n', err


def main():
	with tempfile.TemporaryDirectory() as folder:
		fixture = subprocess.Popen([FIXTURE, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
		try:
			assert fixture.stdout.readline() == 'ready\n', 'the fixture does not start'
			svg_check(folder)
			text = '\n'.join(block(words, schema, pattern, folder) for words, schema, pattern in COMMANDS)
		finally:
			fixture.stdin.close()
			code = fixture.wait(LIMIT_S)
	assert code == 0, 'the fixture ended with %d' % code
	if '--write' in sys.argv[4:]:
		with open(GOLDEN, 'w', encoding='utf-8') as file:
			file.write(text)
		return
	with open(GOLDEN, encoding='utf-8') as file:
		golden = file.read()
	if text != golden:
		import difflib
		sys.stdout.writelines(difflib.unified_diff(golden.splitlines(True), text.splitlines(True), 'golden.txt', 'now'))
		sys.exit(1)


main()
