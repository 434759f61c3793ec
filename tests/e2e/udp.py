"""udp.py - datagram programs for the end-to-end tests. Every program exits with 0 only when all was right.

  echo ADDRESS PORT                    a server that answers; says "serving"
  echo_asked PORT                      a server at every address that answers from the one it was asked at
  ask ADDRESS PORT COUNT [SIZE]        a client: datagrams of random sizes up to SIZE, answers compared
  flood ADDRESS PORT COUNT             asks with 32 datagrams under way, answers matched by number
  threads ADDRESS PORT                 a server with four threads on one socket; says "serving"
  hear GROUP PORT INTERFACE TEXT       joins a group and waits for TEXT; says "joined"
  say GROUP PORT INTERFACE TEXT        sends TEXT to a group, once a tenth of a second, ten times
  shout ADDRESS PORT TEXT              the same to a broadcast address
  listen PORT TEXT                     waits for TEXT at every address; says "listening"
  memcached ADDRESS PORT               set over TCP, get over UDP, values compared
"""
import random
import select
import socket
import struct
import sys
import threading
import time


def echo(address, port):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((address, int(port)))
    print("serving", flush=True)
    while True:
        data, peer = s.recvfrom(65536)
        s.sendto(data, peer)


def echo_asked(port):
    ip_pktinfo = 8  # this module does not name it everywhere
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("", int(port)))
    s.setsockopt(socket.IPPROTO_IP, ip_pktinfo, 1)
    print("serving", flush=True)
    while True:
        data, control, _, peer = s.recvmsg(65536, 256)
        s.sendmsg([data], control, 0, peer)


def ask(address, port, count, size="1400"):
    random.seed(7)
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(2)
    lost = 0
    for i in range(int(count)):
        data = random.randbytes(random.randrange(8, int(size) + 1))
        for _ in range(3):  # a datagram may be lost on the way
            s.sendto(data, (address, int(port)))
            try:
                back, peer = s.recvfrom(65536)
            except socket.timeout:
                lost += 1
                continue
            if back == data and peer == (address, int(port)):
                break
        else:
            raise SystemExit(f"datagram {i} of {len(data)} bytes: no right answer")
    if lost > int(count) // 100:
        raise SystemExit(f"{lost} of {count} lost")
    print("lost", lost)


def flood(address, port, count):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.connect((address, int(port)))
    s.settimeout(1)
    under_way, sent, right, silent = set(), 0, 0, 0
    while right < int(count):
        while len(under_way) < 32 and sent < int(count):
            s.send(struct.pack("!I", sent) * 16)
            under_way.add(sent)
            sent += 1
        try:
            data = s.recv(2048)
        except socket.timeout:  # a busy machine loses some
            silent += 1
            if silent > 10:
                raise SystemExit(f"{len(under_way)} without an answer after {right}")
            for number in under_way:
                s.send(struct.pack("!I", number) * 16)
            continue
        number = struct.unpack("!I", data[:4])[0]
        if data != struct.pack("!I", number) * 16 or number >= sent or (number not in under_way and not silent):
            raise SystemExit(f"a wrong answer for {number}")
        if number in under_way:
            under_way.remove(number)
            right += 1


def threads(address, port):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((address, int(port)))

    def serve():
        while True:
            data, peer = s.recvfrom(2048)
            s.sendto(data, peer)

    all_threads = [threading.Thread(target=serve, daemon=True) for _ in range(4)]
    for t in all_threads:
        t.start()
    print("serving", flush=True)
    for t in all_threads:
        t.join()


def hear(group, port, interface, text):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("", int(port)))
    s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + socket.inet_aton(interface))
    s.settimeout(20)
    print("joined", flush=True)
    data, peer = s.recvfrom(2048)
    if data != text.encode():
        raise SystemExit(f"heard {data!r} from {peer}")
    s.setsockopt(socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP, socket.inet_aton(group) + socket.inet_aton(interface))
    print("heard", peer[0], flush=True)


def repeat(s, to, text):
    for _ in range(10):
        s.sendto(text.encode(), to)
        time.sleep(0.1)


def say(group, port, interface, text):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface))
    repeat(s, (group, int(port)), text)


def shout(address, port, text):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    repeat(s, (address, int(port)), text)


def listen(port, text):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("", int(port)))
    print("listening", flush=True)
    if not select.select([s], [], [], 20)[0]:
        raise SystemExit("heard nothing")
    data, peer = s.recvfrom(2048)
    if data != text.encode():
        raise SystemExit(f"heard {data!r} from {peer}")
    print("heard", peer[0], flush=True)
    time.sleep(0.05)
    s.setblocking(False)
    copies = 0
    try:
        while True:
            s.recv(2048)
            copies += 1
    except BlockingIOError:
        pass
    if copies:
        raise SystemExit(f"heard it {copies + 1} times at once")


def memcached(address, port):
    random.seed(9)
    tcp = socket.create_connection((address, int(port)), 5)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.settimeout(3)
    for i in range(200):
        value = random.randbytes(random.randrange(1, 5000)).hex().encode()
        tcp.sendall(b"set k%d 0 0 %d\r\n%s\r\n" % (i, len(value), value))
        if not tcp.recv(100).startswith(b"STORED"):
            raise SystemExit("not stored")
        udp.sendto(struct.pack("!HHHH", i, 0, 1, 0) + b"get k%d\r\n" % i, (address, int(port)))
        parts, want = {}, 1
        while len(parts) < want:
            data = udp.recv(65536)
            number, at, want, _ = struct.unpack("!HHHH", data[:8])
            if number == i:
                parts[at] = data[8:]
        text = b"".join(parts[k] for k in sorted(parts))
        if text != b"VALUE k%d 0 %d\r\n%s\r\nEND\r\n" % (i, len(value), value):
            raise SystemExit(f"another value for k{i}: {text[:60]!r}")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
