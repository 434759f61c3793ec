"""prom.py [FILE]: reads Prometheus' text exposition format 0.0.4, and refuses what is not quite that.

As a program it says how many samples there are, or what is wrong; with --value NAME [LABEL=VALUE...] it prints one.
Beyond the format it asks for what the conventions do: help for every metric, counters that end in _total and nothing
else that does, base units only.
"""
import math
import re
import sys

NAME = re.compile(r'[a-zA-Z_:][a-zA-Z0-9_:]*')
LABEL = re.compile(r'[a-zA-Z_][a-zA-Z0-9_]*')
TYPES = ('counter', 'gauge', 'histogram', 'summary', 'untyped')


class Wrong(Exception):
	pass


def unescape(text, quote, where):
	out, i = [], 0
	while i < len(text):
		if text[i] == '\\':
			known = {'\\': '\\', 'n': '\n'}
			if quote:
				known['"'] = '"'
			if i + 1 >= len(text) or text[i + 1] not in known:
				raise Wrong('%s: unknown escape in %r' % (where, text))
			out.append(known[text[i + 1]])
			i += 2
		else:
			out.append(text[i])
			i += 1
	return ''.join(out)


def labels_read(text, where):
	"""What stands behind a name, from the brace on: labels, and the rest of the line."""
	labels, at = {}, 1
	while True:
		if text[at:at + 1] == '}':
			return labels, text[at + 1:]
		m = LABEL.match(text, at)
		if not m:
			raise Wrong('%s: a label name is expected at %r' % (where, text[at:]))
		name = m.group()
		if text[m.end():m.end() + 2] != '="':
			raise Wrong('%s: label %s has no value in quotes' % (where, name))
		m = re.compile(r'((?:[^"\\\n]|\\.)*)"').match(text, m.end() + 2)
		if not m:
			raise Wrong('%s: the value of label %s does not end' % (where, name))
		if name in labels:
			raise Wrong('%s: label %s twice' % (where, name))
		if name.startswith('__'):
			raise Wrong('%s: label %s is reserved' % (where, name))
		labels[name] = unescape(m.group(1), True, where)
		at = m.end()
		if text[at:at + 1] == ',':
			at += 1
		elif text[at:at + 1] != '}':
			raise Wrong('%s: comma or brace expected at %r' % (where, text[at:]))


def parse(text):
	"""{name: {'type', 'help', 'samples': [(labels, value)]}}"""
	metrics, current, series = {}, None, set()
	if not text.endswith('\n'):
		raise Wrong('the last line does not end')
	if '\r' in text:
		raise Wrong('a carriage return')
	for number, line in enumerate(text[:-1].split('\n'), 1):
		where = 'line %d' % number
		if not line:
			continue
		m = re.match(r'# (HELP|TYPE) (\S+)(?: (.*))?$', line)
		if m:
			kind, name, rest = m.groups()
			if not NAME.fullmatch(name):
				raise Wrong('%s: %r is no name' % (where, name))
			if name != current:
				if name in metrics:
					raise Wrong('%s: the lines of %s do not stand together' % (where, name))
				metrics[name] = {'type': None, 'help': None, 'samples': []}
				current = name
			entry = metrics[name]
			if entry['samples']:
				raise Wrong('%s: %s of %s behind its samples' % (where, kind, name))
			if entry[kind.lower()] is not None:
				raise Wrong('%s: %s of %s twice' % (where, kind, name))
			if kind == 'TYPE' and rest not in TYPES:
				raise Wrong('%s: unknown type %r' % (where, rest))
			entry[kind.lower()] = unescape(rest or '', False, where)
			continue
		if line.startswith('#'):
			continue
		m = NAME.match(line)
		if not m:
			raise Wrong('%s: neither comment nor sample: %r' % (where, line))
		name, rest, labels = m.group(), line[m.end():], {}
		if rest.startswith('{'):
			labels, rest = labels_read(rest, where)
		m = re.fullmatch(r' ([^ ]+)(?: (-?[0-9]+))?', rest)
		if not m:
			raise Wrong('%s: value expected at %r' % (where, rest))
		if not re.fullmatch(r'[-+]?(Inf|NaN|[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?)', m.group(1)):
			raise Wrong('%s: %r is no number' % (where, m.group(1)))
		value = float(m.group(1))
		if name != current:
			raise Wrong('%s: sample of %s outside its lines' % (where, name))
		key = (name, tuple(sorted(labels.items())))
		if key in series:
			raise Wrong('%s: the same series twice: %s' % (where, key))
		series.add(key)
		if metrics[name]['type'] == 'counter' and not (value >= 0 and math.isfinite(value)):
			raise Wrong('%s: a counter is %s' % (where, m.group(1)))
		metrics[name]['samples'].append((labels, value))
	for name, entry in metrics.items():
		if not entry['type'] or not entry['help']:
			raise Wrong('%s has no type or no help' % name)
		if not entry['samples']:
			raise Wrong('%s has no samples' % name)
		if (entry['type'] == 'counter') != name.endswith('_total'):
			raise Wrong('%s: counters, and nothing else, end in _total' % name)
		if re.search(r'_(ns|us|ms|octets|kb|mb|percent|milliseconds|nanoseconds)(_total)?$', name):
			raise Wrong('%s: not a base unit' % name)
	return metrics


def value_of(metrics, name, **wanted):
	"""The sum of the samples that have these labels."""
	found = [v for labels, v in metrics[name]['samples'] if all(labels.get(k) == w for k, w in wanted.items())]
	if not found:
		raise Wrong('no sample of %s with %s' % (name, wanted))
	return sum(found)


def main():
	args = sys.argv[1:]
	text = open(args[0], encoding='utf-8').read() if args and args[0] != '-' else sys.stdin.read()
	try:
		metrics = parse(text)
		if args[1:2] == ['--value']:
			print('%d' % value_of(metrics, args[2], **dict(a.split('=', 1) for a in args[3:])))
		else:
			print('%d metrics, %d samples' % (len(metrics), sum(len(m['samples']) for m in metrics.values())))
	except Wrong as why:
		sys.exit('not in order: %s' % why)


if __name__ == '__main__':
	main()
