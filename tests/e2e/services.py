#!/usr/bin/env python3
"""services.py - one program that uses two services at a time, and the peers that it talks to. For services.sh.

  services.py peer SOCKET            does what it is told over SOCKET (multiprocessing.connection): a peer, on the kernel's sockets
  services.py case WORLD NAME...     the cases, under Pronk; says on stderr what was wrong, and ends with 1
  services.py cases                  their names, without those of special worlds (see others)

WORLD is a JSON file: "places": {name: [address of the program there, the peer's address, its SOCKET]}, with a, b (networks of two
services) and kernel (127.0.0.1); "beyond": an address behind b's gateway; "ctl": pronkctl and the options that come before its
command, [] when nothing is under Pronk; "names": the services of a and b; "inline": whether a's
is in the program. A case can be run without Pronk where the kernel has all of these addresses: that is what it must agree with.

Nothing sleeps to let time go by: a thread that has to wait in the kernel is looked at until it does.
"""
import faulthandler
import json
import os
import sys
import time
import traceback

sys.dont_write_bytecode = True
import services_proc  # noqa: E402  (their cases are put into one table)
import services_tcp  # noqa: E402, F401
import services_udp  # noqa: E402
from services_world import cases, LIMIT_S, peer, Place, places, world, Wrong  # noqa: E402


# in a world where b's service dies or is not there; one that does not hold
others = {f.__name__: f for f in (services_proc.victim, services_proc.only_a, services_udp.udp_automatic_port_is_everywhere)}


def run(path, names):
	with open(path, encoding='utf-8') as f:
		world.update(json.load(f))
	bad = 0
	for name in names:
		for place in world['places']:
			places[place] = Place(place, *world['places'][place])
		faulthandler.dump_traceback_later(4 * LIMIT_S, exit=True)
		start = time.monotonic()
		try:
			{**cases, **others}[name]()
			print('passed %s %d' % (name, (time.monotonic() - start) * 1000), flush=True)
		except (Wrong, OSError) as e:
			lines = [f for f in traceback.extract_tb(e.__traceback__) if not f.filename.endswith('_world.py')]
			print('%s: %s (%s:%d)' % (name, e, os.path.basename(lines[-1].filename), lines[-1].lineno), file=sys.stderr, flush=True)
			bad += 1
		faulthandler.cancel_dump_traceback_later()
		for place in places.values():
			place.conn.close()
	sys.stdout.flush()
	sys.stderr.flush()
	os._exit(bad != 0)


if __name__ == '__main__':
	commands = {'peer': peer, 'upper': services_proc.upper_server, 'receive': services_proc.receive, 'cases': lambda: print('\n'.join(cases)),
		'case': lambda path, *names: run(path, names or cases)}
	if len(sys.argv) < 2 or sys.argv[1] not in commands:
		sys.exit(__doc__)
	commands[sys.argv[1]](*sys.argv[2:])
