"""host.py ADDRESS PORT - with mode = inline: a program that has the stack for all others. It waits for a datagram that nobody
sends, says "hosting", and ends in order when it is told to (SIGTERM)."""
import signal
import socket
import sys

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], int(sys.argv[2])))
print("hosting", flush=True)
while True:
    s.recv(1)
