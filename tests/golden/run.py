#!/usr/bin/env python3
"""run.py PRONKCTL FIXTURE NIC_PRINT [--update]: what pronkctl prints of a service filled in by hand, compared byte for byte.

Each case's output is in tests/golden/NAME.out: exit status, standard output, and standard error behind "--- stderr". JSON is also
checked against doc/schema. --update writes the files anew; look at the difference before you commit it. What changes from run to
run (pids, the folder, milliseconds in JSON) is replaced by a word.
"""
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(HERE))
import schema  # noqa: E402

# name, words, schema of the JSON form (None: no JSON form of its own)
CASES = [
    ('sockets', ['sockets'], 'sockets'),
    ('sockets-wide', ['sockets', '--wide'], None),
    ('sockets-timers', ['sockets', '-o', 'state', 'established'], None),
    ('sockets-summary', ['sockets', '--summary'], 'sockets-summary'),
    ('sockets-kernel', ['sockets', '--kernel'], 'sockets'),
    ('sockets-listening', ['sockets', '-l', '-t'], 'sockets'),
    ('sockets-udp', ['sockets', '--udp'], 'sockets'),
    ('sockets-filter', ['sockets', 'sport=6379 and dst 198.18.0.0/24', 'dport', '>', '40000'], 'sockets'),
    ('sockets-program', ['sockets', '-e', 'program', 'redis*', 'stack', '1'], 'sockets'),
    ('sockets-bad-word', ['sockets', 'colour', 'red'], None),
    ('sockets-bad-port', ['sockets', 'sport', '<', '70000'], None),
    ('sockets-bad-state', ['sockets', 'state', 'open'], None),
    ('sockets-bad-prefix', ['sockets', 'dst', '10.0.0.0/33'], None),
    ('sockets-bad-or', ['sockets', 'sport', '1', 'or', 'sport', '2'], None),
    ('arp', ['arp'], 'arp'),
    ('routes', ['routes'], 'routes'),
    ('ports', ['ports'], 'ports'),
    ('interrupts', ['interrupts'], 'interrupts'),
    ('config', ['config'], None),
    ('nic-asked', ['nic'], None),
    ('set-refused', ['set', 'mtu', '1'], None),
    ('repeated', ['--interval', '0.1', '--count', '2', 'arp'], None),
    ('words-too-many', ['arp', 'x'], None),
    ('options-of-another', ['arp', '--wide'], None),
    ('interval-of-another', ['config', '--interval', '1'], None),
    ('interval-bad', ['arp', '--interval', '0'], None),
    ('pid-bad', ['-p', 'x1', 'arp'], None),
    ('pid-none', ['-p', '1999999999', 'arp'], None),
    ('two-services', ['-p', '1', '-i', 'x', 'arp'], None),
    ('every-of-another', ['--all-instances', 'dump'], None),
    ('every-interval', ['--all-instances', '--interval', '1', 'arp'], None),
    ('command-unknown', ['colour'], None),
]
STOPPED = [
    ('stopped-sockets', ['sockets'], 'sockets'),
    ('stopped-arp', ['arp'], 'arp'),
    ('stopped-ports', ['ports'], 'ports'),
    ('stopped-interrupts', ['interrupts'], 'interrupts'),
    ('stopped-nic', ['nic'], None),
    ('stopped-config', ['config'], None),
]


class Golden:
    def __init__(self, pronkctl, folder, pid, update):
        self.pronkctl, self.folder, self.pid, self.update = pronkctl, folder, pid, update
        self.failed = 0

    def fail(self, name, why):
        self.failed += 1
        print(f'{name}: {why}')

    def settle(self, text):
        text = text.replace(self.folder, 'FOLDER').replace(self.pronkctl, 'pronkctl')
        text = re.sub(r'\(pid %d, fixture\)' % self.pid, '(pid PID, fixture)', text)
        text = re.sub(r'("(?:in|age)_ms": )-?\d+', r'\1MS', text)
        return re.sub(r"(Try )`.*' or", r"\1... or", text)

    def run(self, words, json_form=False):
        args = [self.pronkctl, '-s', os.path.join(self.folder, 'golden.sock')]
        if '-p' in words or '--all-instances' in words:
            args = [self.pronkctl]
        env = {'PATH': os.environ.get('PATH', ''), 'LC_ALL': 'C'}
        for key in ('ASAN_OPTIONS', 'UBSAN_OPTIONS'):
            if key in os.environ:
                env[key] = os.environ[key]
        return subprocess.run(args + (['--json'] if json_form else []) + words, capture_output=True, timeout=60, env=env,
                              stdin=subprocess.DEVNULL, check=False, cwd=self.folder)

    def compare(self, name, done):
        text = self.settle(f'exit {done.returncode}\n' + done.stdout.decode('utf-8', 'backslashreplace') + '--- stderr\n' +
                           done.stderr.decode('utf-8', 'backslashreplace'))
        path = os.path.join(HERE, name + '.out')
        if self.update:
            with open(path, 'w', encoding='utf-8') as file:
                file.write(text)
            return
        try:
            with open(path, encoding='utf-8') as file:
                want = file.read()
        except FileNotFoundError:
            self.fail(name, f'{path} is missing: --update writes it')
            return
        if text != want:
            self.fail(name, f'prints\n{text}\ninstead of\n{want}')

    def document(self, name, schema_name, done):
        try:
            document = json.loads(done.stdout)
        except ValueError as e:
            self.fail(name, f'no JSON: {e}: {done.stdout[:300]}')
            return
        for error in schema.check(schema_name, document)[:3]:
            self.fail(name, f'does not fit its schema: {error}')

    def cases(self, cases):
        for name, words, schema_name in cases:
            self.compare(name, self.run(words))
            if schema_name:
                done = self.run(words, json_form=True)
                self.compare(name + '-json', done)
                self.document(name, schema_name, done)


def nic(golden, nic_print):
    for name, words in (('nic', []), ('nic-memif', ['memif'])):
        golden.compare(name, subprocess.run([nic_print] + words, capture_output=True, timeout=30, check=False))
        done = subprocess.run([nic_print, 'json'] + words, capture_output=True, timeout=30, check=False)
        golden.compare(name + '-json', done)
        golden.document(name, 'nic', done)


def dump(golden):
    """The archive opens, and a file that is there stays."""
    path = os.path.join(golden.folder, 'one.tar.gz')
    done = golden.run(['dump', path])
    listed = subprocess.run(['tar', 'tzf', path], capture_output=True, text=True, timeout=30, check=False)
    if done.returncode or listed.returncode:
        golden.fail('dump', f'{done.stderr.decode()} {listed.stderr}')
    for name in ('versions', 'missing', 'commands/sockets.json', 'commands/nic.txt', 'machine/proc/meminfo'):
        if not any(line.split('/', 1)[1:] == [name] for line in listed.stdout.splitlines()):
            golden.fail('dump', f'{name} is not in it')
    if 'golden.log' not in done.stdout.decode() or '/proc/2147483647' not in done.stdout.decode():
        golden.fail('dump', f'does not say what is missing: {done.stdout.decode()}')
    with open(path, 'rb') as file:
        before = file.read()
    golden.compare('dump-again', golden.run(['dump', path]))
    golden.compare('dump-nowhere', golden.run(['dump', '/nonexistent/one.tar.gz']))
    with open(path, 'rb') as file:
        if file.read() != before:
            golden.fail('dump', 'wrote over a file')


def dump_stdout(golden):
    """To a pipe it is the same archive; a terminal gets none."""
    done = golden.run(['dump', '-'])
    listed = subprocess.run(['tar', 'tzf', '-'], input=done.stdout, capture_output=True, timeout=30, check=False)
    if done.returncode or listed.returncode or b'/commands/sockets.json\n' not in listed.stdout:
        golden.fail('dump -', f'{done.returncode} {done.stderr.decode()} {listed.stderr.decode()}')
    if not re.match(r'the archive: \d+ files\nNot in it:\n', done.stderr.decode()):
        golden.fail('dump -', f'says {done.stderr.decode()}')
    if os.path.exists(os.path.join(golden.folder, '-')):
        golden.fail('dump -', 'has made a file of that name')
    master, slave = os.openpty()
    done = subprocess.run([golden.pronkctl, '-s', os.path.join(golden.folder, 'golden.sock'), 'dump', '-'], stdin=subprocess.DEVNULL,
                          stdout=slave, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(slave)
    os.close(master)
    if done.returncode != 1 or done.stderr != b'pronkctl: dump: an archive is nothing for a terminal; send it to a file or a pipe\n':
        golden.fail('dump - to a terminal', f'{done.returncode} {done.stderr.decode()}')


def instances(golden):
    """What else runs on this machine is listed, too: only the form is known."""
    done = golden.run(['instances'], json_form=True)
    golden.document('instances', 'instances', done)
    mine = [i for i in json.loads(done.stdout)['instances'] if i['socket'].startswith(golden.folder)]
    if [i['name'] for i in mine] != ['golden']:
        golden.fail('instances', f'{mine}')


def ended(golden, fd):
    """The fixture has ended, and this process still has its memory."""
    done = golden.run(['instances'])
    lines = [line for line in done.stdout.decode().splitlines() if golden.folder in line]
    with open('/proc/self/comm', encoding='utf-8') as file:
        me = file.read().strip()
    if len(lines) != 1 or not re.match(r'golden +%d +%s +ended ' % (os.getpid(), re.escape(me)), lines[0]):
        golden.fail('instances', f'of one that has ended: {lines}')
    if '\nended: the service is gone; the program in the line' not in done.stdout.decode():
        golden.fail('instances', f'does not say what ended means: {done.stdout.decode()}')
    found = [i for i in json.loads(golden.run(['instances'], json_form=True).stdout)['instances'] if i['socket'].startswith(golden.folder)]
    if [(i['state'], i['pid']) for i in found] != [('ended', os.getpid())]:
        golden.fail('instances', f'of one that has ended: {found}')
    os.close(fd)


def memory_keep(pid):
    """The memory of the fixture's service, open."""
    for name in os.listdir(f'/proc/{pid}/fd'):
        path = f'/proc/{pid}/fd/{name}'
        if os.readlink(path).startswith('/memfd:pronk-arena'):
            return os.open(path, os.O_RDONLY)
    raise RuntimeError('the fixture has no arena')


def stop(pid):
    os.kill(pid, signal.SIGSTOP)
    for _ in range(1000):
        with open(f'/proc/{pid}/stat', encoding='utf-8') as file:
            if file.read().rsplit(')', 1)[1].split()[0] == 'T':
                return
        time.sleep(0.01)
    raise RuntimeError('the fixture does not stop')


def main():
    update = '--update' in sys.argv
    args = [os.path.abspath(a) for a in sys.argv[1:] if a != '--update']
    if len(args) != 3:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory(prefix='pronk-golden.') as folder:
        with subprocess.Popen([args[1], folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as fixture:
            golden = Golden(args[0], folder, fixture.pid, update)
            try:
                if fixture.stdout.readline() != b'ready\n':
                    sys.exit('the fixture did not start')
                golden.cases(CASES)
                dump(golden)
                dump_stdout(golden)
                instances(golden)
                nic(golden, args[2])
                stop(fixture.pid)
                golden.cases(STOPPED)
                os.kill(fixture.pid, signal.SIGUSR1)
                os.kill(fixture.pid, signal.SIGCONT)
                golden.cases([('silent-arp', ['arp'], None)])  # five seconds
                fd = memory_keep(fixture.pid)
            finally:
                os.kill(fixture.pid, signal.SIGCONT)
                fixture.stdin.close()
                fixture.wait(30)
            ended(golden, fd)
    print(f'{golden.failed} failed')
    sys.exit(1 if golden.failed else 0)


if __name__ == '__main__':
    main()
