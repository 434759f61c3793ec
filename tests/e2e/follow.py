"""follow.py serve PORT | talk ADDRESS PORT FILE | once ADDRESS PORT [BYTES]: an echo server, and two clients of it.

talk opens one connection and looks at FILE: every number that is added there as a line is so many bytes that go there and come
back; "ok N" is printed for each, the first for one byte. once does that with one connection for each call."""

import os
import signal
import socket
import sys
import threading
import time

LIMIT_S = 40


def echo(s):
    with s:
        while data := s.recv(65536):
            s.sendall(data)


def serve(port):
    # an orderly end: with mode = inline the stack is this program's
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", port))
    listener.listen(16)
    print("listening", flush=True)
    while True:
        s, _ = listener.accept()
        threading.Thread(target=echo, args=(s,), daemon=True).start()


def there_and_back(s, count):
    data = os.urandom(count)
    sender = threading.Thread(target=s.sendall, args=(data,))
    sender.start()
    got = bytearray()
    while len(got) < count:
        part = s.recv(65536)
        if not part:
            raise ConnectionError("end of file")
        got += part
    sender.join()
    if got != data:
        raise ValueError("other bytes came back")
    print("ok", count, flush=True)


def talk(address, port, file):
    s = socket.create_connection((address, port), LIMIT_S)
    s.settimeout(LIMIT_S)
    there_and_back(s, 1)
    done = 0
    end = time.monotonic() + 3 * LIMIT_S
    while time.monotonic() < end:
        with open(file) as f:
            lines = f.read().splitlines()
        for line in lines[done:]:
            there_and_back(s, int(line))
        done = len(lines)
        time.sleep(0.02)


def once(address, port, count=1):
    with socket.create_connection((address, port), 10) as s:
        s.settimeout(LIMIT_S)
        there_and_back(s, count)


if sys.argv[1] == "serve":
    serve(int(sys.argv[2]))
elif sys.argv[1] == "talk":
    talk(sys.argv[2], int(sys.argv[3]), sys.argv[4])
else:
    once(sys.argv[2], int(sys.argv[3]), *map(int, sys.argv[4:]))
