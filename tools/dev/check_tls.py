#!/usr/bin/env python3
"""check_tls.py [--max-tls BYTES] [--stamp FILE] OBJECT...

Proves that object files keep no state that threads share. Fails (exit 1) on
 - a non-empty writable section that is neither thread-local (.tdata, .tbss) nor
   relocation-only (.data.rel.ro*, read-only once the program is loaded);
 - a COMMON symbol;
 - a thread-local access in the general-dynamic, local-dynamic or descriptor
   form, which may allocate on first touch and call into the dynamic linker;
 - more thread-local bytes in all than BYTES: each is taken from the stack of
   every thread of the process;
 - no thread-local bytes at all, which would mean that nothing was looked at.
Any ELF machine that readelf knows. FILE gets the summary on success only."""
import argparse
import os
import re
import subprocess
import sys

# [Nr] name type address offset size entry-size flags
SECTION = re.compile(r'\s*\[\s*\d+\]\s+(\.\S+)\s+(\S+)\s+[0-9a-f]+\s+[0-9a-f]+\s+([0-9a-f]+)\s+\S+\s+([A-Za-z]*)\s')
# number: value size type binding visibility section name
SYMBOL = re.compile(r'\s*\d+:\s+[0-9a-f]+\s+\S+\s+(\w+)\s+\w+\s+\w+\s+(?:\[.*?\]\s+)?(\S+)\s+(\S+)')
# readelf cuts long names of relocations, so only beginnings are compared
DYNAMIC_TLS = re.compile(r'\bR_[A-Z0-9]+(?:_64)?_((?:GOTPC32_)?TLSDE|TLSGD|TLSLD)\w*')


def readelf(path):
    env = dict(os.environ, LC_ALL='C')
    command = [os.environ.get('READELF', 'readelf'), '-SsrW', path]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout


def check(path):
    """(thread-local bytes, list of faults) of one object"""
    threadlocal, faults, names, writable, dynamic = 0, [], {}, [], set()
    for line in readelf(path).splitlines():
        section = SECTION.match(line)
        if section:
            number = re.match(r'\s*\[\s*(\d+)\]', line)[1]
            name, size, flags = section[1], int(section[3], 16), section[4]
            if size and 'T' in flags and 'A' in flags:
                threadlocal += size
            elif size and 'W' in flags and 'A' in flags and not name.startswith('.data.rel.ro'):
                writable.append((number, name, size))
            continue
        symbol = SYMBOL.match(line)
        if symbol:
            if symbol[2] in ('COM', 'COMMON'):
                faults.append('%s: COMMON %s' % (path, symbol[3]))
            elif symbol[1] == 'OBJECT':
                names.setdefault(symbol[2], []).append(symbol[3])
            continue
        access = DYNAMIC_TLS.search(line)
        if access:
            dynamic.add(access[0])
    for number, name, size in writable:
        faults.append('%s: %d writable bytes in %s (%s)' % (path, size, name, ' '.join(names.get(number, []))))
    if dynamic:
        faults.append('%s: dynamic thread-local access: %s' % (path, ' '.join(sorted(dynamic))))
    return threadlocal, faults


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--max-tls', type=int)
    parser.add_argument('--stamp')
    parser.add_argument('objects', nargs='+', metavar='OBJECT')
    args = parser.parse_args()
    total, faults = 0, []
    for path in args.objects:
        size, found = check(path)
        total += size
        faults += found
    if args.max_tls is not None and total > args.max_tls:
        faults.append('%d thread-local bytes, limit %d' % (total, args.max_tls))
    if total == 0:
        faults.append('no thread-local variable in any object')
    for fault in faults:
        print('check_tls: ' + fault, file=sys.stderr)
    summary = 'check_tls: %d objects, %d thread-local bytes, %d faults' % (len(args.objects), total, len(faults))
    print(summary)
    if faults:
        return 1
    if args.stamp:
        with open(args.stamp, 'w', encoding='ascii') as stamp:
            stamp.write(summary + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
