#!/usr/bin/env python3
"""capture.py COMMAND ARGUMENT... - looks into capture files for capture.sh; ends with 1 and a line when something is wrong.

  check FILE                     a whole pcapng file: prints its counts as key=value
  marks FILE TEXT COUNT          succeeds when at least COUNT packets hold TEXT (the file may still grow)
  same PCAPNG OTHER FROM TO      what lies between the packets that hold FROM and those that hold TO is the same in both,
                                 in each direction, byte for byte and in order; OTHER is of the other end of the link. With
                                 several stacks the order is each stack's
"""
import struct
import sys


class Wrong(Exception):
    pass


def need(condition, text):
    if not condition:
        raise Wrong(text)


def options(data, order):
    found, at = {}, 0
    while at + 4 <= len(data):
        code, size = struct.unpack_from(order + "HH", data, at)
        if code == 0:
            return found
        need(at + 4 + size <= len(data), "an option is cut off")
        found.setdefault(code, []).append(data[at + 4:at + 4 + size])
        at += 4 + (size + 3) // 4 * 4
    need(at == len(data), "options that do not end")
    return found


def read_pcapng(data, whole):
    """Packets as (direction, queue, time in ns, original size, bytes), the interfaces, the statistics, the section's options."""
    packets, interfaces, statistics, section, at = [], [], [], {}, 0
    order = "<"
    while at < len(data):
        if at + 12 > len(data):
            need(not whole, "the last block is cut off")
            break
        kind, size = struct.unpack_from(order + "II", data, at)
        need(size >= 12 and size % 4 == 0, "a block of %d bytes" % size)
        if at + size > len(data):
            need(not whole, "the last block is cut off")
            break
        body = data[at + 8:at + size - 4]
        need(struct.unpack_from(order + "I", data, at + size - 4)[0] == size, "the two sizes of a block differ")
        at += size
        if kind == 0x0A0D0D0A:
            need(body[:4] == b"\x4d\x3c\x2b\x1a", "byte order")
            section = options(body[16:], order)
        elif kind == 1:
            found = options(body[8:], order)
            need(struct.unpack_from(order + "H", body)[0] == 1, "not Ethernet")
            need(found.get(9) == [b"\x09"], "time stamps are not in nanoseconds")
            interfaces.append(found)
        elif kind == 6:
            interface, high, low, kept, size = struct.unpack_from(order + "IIIII", body)
            need(interface < len(interfaces), "a packet of an interface that is not described")
            need(kept <= size and 20 + kept <= len(body), "a packet of %d bytes, %d of them kept" % (size, kept))
            found = options(body[20 + (kept + 3) // 4 * 4:], order)
            direction = struct.unpack(order + "I", found[2][0])[0] & 3
            need(direction in (1, 2), "a packet without direction")
            queue = struct.unpack(order + "I", found[6][0])[0]
            packets.append((direction, queue, high << 32 | low, size, body[20:20 + kept]))
        elif kind == 5:
            found = options(body[12:], order)
            statistics.append([struct.unpack(order + "Q", found[code][0])[0] for code in (4, 5)])
        else:
            raise Wrong("a block of kind %d" % kind)
    return packets, interfaces, statistics, section


def read_pcap(data):
    order = "<" if data[0] in (0xD4, 0x4D) else ">"
    packets, at = [], 24
    while at + 16 <= len(data):
        _, _, kept, size = struct.unpack_from(order + "IIII", data, at)
        if at + 16 + kept > len(data):
            break
        packets.append(data[at + 16:at + 16 + kept])
        at += 16 + kept
    return packets


def frames_by_sender(path, mac):
    """The frames that mac has sent, and those it has not, each as (stack, bytes). Without IPv6: with af_packet the kernel
    speaks that through the port's interface, too, and what it sends there is not ours."""
    with open(path, "rb") as file:
        data = file.read()
    if data[:4] == b"\x0a\x0d\x0d\x0a":
        frames = [(p[1], p[4]) for p in read_pcapng(data, False)[0]]
    else:
        frames = [(0, f) for f in read_pcap(data)]
    frames = [f for f in frames if f[1][12:14] != b"\x86\xdd"]
    return [f for f in frames if f[1][6:12] == mac], [f for f in frames if f[1][6:12] != mac]


def check(path):
    with open(path, "rb") as file:
        packets, interfaces, statistics, section = read_pcapng(file.read(), True)
    need(len(interfaces) == 1, "%d interfaces" % len(interfaces))
    need(len(statistics) == 1, "%d blocks of statistics" % len(statistics))
    need(section.get(4, [b""])[0].startswith(b"pronk-dump "), "it does not say who wrote it")
    for queue in {p[1] for p in packets}:
        times = [p[2] for p in packets if p[1] == queue]
        need(times == sorted(times), "time runs backwards at stack %d" % queue)
    received, dropped = statistics[0]
    need(len(packets) <= received - dropped, "%d packets, %d received, %d dropped" % (len(packets), received, dropped))
    print("packets=%d in=%d out=%d received=%d dropped=%d longest=%d kept=%d queues=%s first=%d" % (
        len(packets), sum(p[0] == 1 for p in packets), sum(p[0] == 2 for p in packets), received, dropped,
        max([p[3] for p in packets], default=0), max([len(p[4]) for p in packets], default=0),
        ",".join(str(q) for q in sorted({p[1] for p in packets})), packets[0][2] // 10**9 if packets else 0))


def marks(path, text, count):
    with open(path, "rb") as file:
        data = file.read()
    need(data.count(text.encode()) >= int(count), "not there yet")


def own_mac(path):
    with open(path, "rb") as file:
        packets, interfaces, _, _ = read_pcapng(file.read(), False)
    mac = interfaces[0][6][0]
    for direction, _, _, _, frame in packets:
        need((frame[6:12] == mac) == (direction == 2), "the direction of a frame from %s" % frame[6:12].hex(":"))
    return mac


def between(frames, begin, end, path):
    first = [i for i, f in enumerate(frames) if begin.encode() in f[1]]
    last = [i for i, f in enumerate(frames) if end.encode() in f[1]]
    need(first and last, "%s does not have both marks" % path)
    return frames[first[-1] + 1:last[0]]


def flow_of(frame):
    """What keeps its order between two places on one link: segments of a connection, and the fragments of a datagram. The kernel may hand two
    packets of different senders, who run on different cores, to its listeners in one order and to the link in the other."""
    if frame[12:14] != b"\x08\x00" or len(frame) < 34:
        return frame[12:14]
    head = 14 + (frame[14] & 15) * 4
    proto, ends, ident = frame[23], frame[26:34], frame[18:20]
    return (proto, ends, frame[head:head + 4] if proto == 6 else ident)


def same_frames(ours, theirs, name):
    for i, (a, b) in enumerate(zip(sorted(f[1] for f in ours), sorted(f[1] for f in theirs))):
        need(a == b, "%s frame %d (sorted) differs:\n%s\n%s" % (name, i, a.hex(), b.hex()))
    need(len(ours) == len(theirs), "%d %s frames here, %d at the other end" % (len(ours), name, len(theirs)))
    flows = [{}, {}]
    for side, frames in zip(flows, (ours, theirs)):
        for _, frame in frames:
            side.setdefault(flow_of(frame), []).append(frame)
    for flow, frames in flows[0].items():
        need(frames == flows[1][flow], "%s: frames of one connection or datagram in another order: %r" % (name, flow))


def same(path, other, begin, end):
    mac, total, longest = own_mac(path), 0, 0
    for ours, theirs, name in zip(frames_by_sender(path, mac), frames_by_sender(other, mac), ("sent", "received")):
        ours, theirs = between(ours, begin, end, path), between(theirs, begin, end, other)
        need(ours, "no %s frames" % name)
        same_frames(ours, theirs, name)
        total += len(ours)
        longest = max([longest] + [len(f[1]) for f in ours])
    print("%d packets, the longest of %d bytes" % (total, longest))


try:
    {"check": check, "marks": marks, "same": same}[sys.argv[1]](*sys.argv[2:])
except Wrong as e:
    sys.exit("%s: %s" % (sys.argv[2], e))
