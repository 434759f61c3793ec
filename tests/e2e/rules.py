"""rules.py - a program with the sockets that it is told to open, for rules.sh; and what the tools say of them.

	rules.py open ACTION...      one line "NUMBER ACTION" for each socket, then "open"; ends when its standard input does
	rules.py said PID            reads `pronkctl --json sockets`: one line "NUMBER pronk" or "NUMBER REASON" for each socket of PID

ACTION is listen:ADDR:PORT, connect:ADDR:PORT, bind:ADDR:PORT or send:ADDR:PORT (the last two: datagrams), or
listen:ADDR:PORT:PEERS, which also answers a byte to each of PEERS connections.
"""
import json
import socket
import sys


def open_one(action):
	verb, addr, port = action.split(':')[:3]
	where = (addr, int(port))
	s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if verb in ('listen', 'connect') else socket.SOCK_DGRAM)
	s.settimeout(20)
	if verb == 'listen':
		s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
		s.bind(where)
		s.listen(8)
	elif verb == 'connect':
		s.connect(where)
	elif verb == 'bind':
		s.bind(where)
	elif verb == 'send':
		s.sendto(b'x', where)
	else:
		sys.exit('unknown action ' + action)
	return s


def main():
	if sys.argv[1] == 'said':
		text = sys.stdin.read()
		told = json.loads(text) if text else {'sockets': [], 'kernel': []}  # no service: nothing of anybody's
		for row in told['sockets']:
			if row['pid'] == int(sys.argv[2]) and row['fd'] is not None:
				print(row['fd'], 'pronk')
		for row in told['kernel']:
			if row['pid'] == int(sys.argv[2]):
				print(row['fd'], row['reason'])
		return
	sockets = []
	for action in sys.argv[2:]:
		sockets.append(open_one(action))
		print(sockets[-1].fileno(), action, flush=True)
	print('open', flush=True)
	for s, action in zip(sockets, sys.argv[2:]):
		parts = action.split(':')
		for _ in range(int(parts[3]) if len(parts) > 3 else 0):
			peer, _ = s.accept()
			peer.sendall(b'y')
			peer.close()
	sys.stdin.read()


main()
