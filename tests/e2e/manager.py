"""manager.py - stands in for the service manager, for manager.sh: a datagram socket that writes down what it is sent.

	manager.py FILE SOCKET [COMMAND...]

Binds SOCKET, runs COMMAND if there is one, and appends each datagram to FILE as one line (newlines become spaces) until COMMAND has
ended; without one, until it is killed. A message of libsystemd's that comes as a descriptor is read from there.
"""
import os
import select
import signal
import socket
import subprocess
import sys

out = open(sys.argv[1], 'w', encoding='utf-8', errors='replace')
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[2])
os.chmod(sys.argv[2], 0o666)
out.write('listening\n')
out.flush()
child = subprocess.Popen(sys.argv[3:], stdin=subprocess.DEVNULL) if len(sys.argv) > 3 else None
if child:
	signal.signal(signal.SIGTERM, lambda number, frame: child.terminate())
ended = [os.pidfd_open(child.pid)] if child else []
while True:
	ready, _, _ = select.select([s] + ended, [], [])
	if s in ready:
		data, fds, _, _ = socket.recv_fds(s, 1 << 16, 4)
		for fd in fds:
			data += os.pread(fd, 1 << 16, 0)
			os.close(fd)
		out.write(data.decode(errors='replace').replace('\n', ' ').strip() + '\n')
		out.flush()
	else:
		break
sys.exit(child.wait() if child else 0)
