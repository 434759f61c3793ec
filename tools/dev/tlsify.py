#!/usr/bin/env python3
"""tlsify.py [--only PATH]... LIST SRCDIR OUTDIR

Copies a C source tree and puts the macro LWIP_PER_STACK in front of every
mutable file-scope or function-static variable that LIST names. Where that
macro is __thread, each thread has its own instance of the whole library;
where it is nothing, the process has one. A header that every source includes
first defines it. With --only just these files or folders of SRCDIR are taken.

LIST has one entry per line, '#' starts a comment:
  name        its declarations, definition and extern alike, get the macro
  =name       an initialised constant table that holds addresses of listed
              variables, which is no constant expression once they are
              thread-local: the definition goes, and every extern of it becomes
              a macro with a compound literal of the source's own initialiser
  !name       known, deliberately left alone

Fails (exit 1) on a mutable variable in a .c that LIST does not name: a newer
upstream cannot bring shared state unnoticed. Listed names that never occur are
no error, they may belong to another version. A file of OUTDIR is only written
when its content changes, and files that no longer belong there are removed.
Whether the result is free of shared state is for check_tls.py to prove."""
import argparse
import os
import re
import sys

QUALIFIERS = r'(?:(?:static|extern|const|volatile|struct|union|enum|unsigned|signed|long|short)\s+)*'
DECLARATION = re.compile(
    r'\s*(?P<storage>static\s+|extern\s+)?(?P<type>' + QUALIFIERS + r'[A-Za-z_]\w*\b[\s*\w]*?)'
    r'\b(?P<name>[A-Za-z_]\w*)\s*(?P<rest>(?:\[[^\]]*\]\s*)*(?:[=,].*)?)$', re.S)
NO_DECLARATION = re.compile(r'\s*(typedef|return|goto|else|case|struct\s+\w+$|union\s+\w+$|enum\b)')


def spaces(match):
    return re.sub(r'[^\n]', ' ', match[0])


def blank(text):
    """text with comments, strings and preprocessor lines blanked, same length and lines."""
    text = re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', spaces, text, flags=re.S)
    text = re.sub(r'^[ \t]*#(?:[^\n]*\\\n)*[^\n]*', spaces, text, flags=re.M)
    # a macro alone on its line, such as PACK_STRUCT_END, would look like a type
    return re.sub(r'^[ \t]*[A-Z][A-Z0-9_]*[ \t]*$', spaces, text, flags=re.M)


def statements(code):
    """(start, end, is_at_file_scope) of each run of text that a semicolon ends."""
    depth = paren = start = initialiser = 0
    for at in (m.start() for m in re.finditer(r'[()\[\]{};]', code)):
        char = code[at]
        if char in '([':
            paren += 1
        elif char in ')]':
            paren -= 1
        elif char == '{':
            before = code[start:at].rstrip()
            if initialiser or (not paren and before.endswith('=')):
                initialiser += 1
            else:
                # extern "C" { opens no scope (its string is blanked)
                depth += 0 if re.search(r'\bextern$', before) else 1
                start = at + 1
        elif char == '}':
            if initialiser:
                initialiser -= 1
            else:
                depth = max(depth - 1, 0)
                start = at + 1
        elif not paren and not initialiser:
            yield start, at, depth == 0
            start = at + 1


def declared(code, start, end, at_file_scope):
    """(match, storage, names, is_constant) if the statement declares static-storage variables, else None."""
    text = code[start:end]
    match = None if NO_DECLARATION.match(text) else DECLARATION.match(text)
    if not match:
        return None
    storage = (match['storage'] or '').strip()
    head = match['rest'].split('=')[0]
    if (not at_file_scope and storage != 'static') or '(' in head:
        return None
    names = [match['name']] + re.findall(r',\s*\**(\w+)', head)
    pointed = match['type'].rsplit('*', 1)
    return match, storage, names, bool(re.search(r'\bconst\b', pointed[-1]))


def read_list(path):
    entries = {'': set(), '=': set(), '!': set()}
    with open(path, encoding='ascii') as lines:
        for line in lines:
            name = line.split('#')[0].strip()
            if name:
                entries[name[0] if name[0] in '=!' else ''].add(name.lstrip('=!'))
    return entries[''], entries['='], entries['!']


def source_files(src, only):
    for root, folders, names in os.walk(src):
        folders.sort()
        for name in sorted(names):
            path = os.path.relpath(os.path.join(root, name), src)
            if name.endswith(('.c', '.h')) and (not only or any((path + '/').startswith(o + '/') for o in only)):
                yield path


def write_if_changed(path, text):
    data = text.encode('latin-1')
    try:
        with open(path, 'rb') as old:
            if old.read() == data:
                return
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'wb') as new:
        new.write(data)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--only', action='append', default=[])
    parser.add_argument('list')
    parser.add_argument('src')
    parser.add_argument('out')
    args = parser.parse_args()
    threadlocal, tables, left_alone = read_list(args.list)
    files = list(source_files(args.src, [only.rstrip('/') for only in args.only]))
    if not files:
        sys.exit('tlsify: no C sources in %s' % args.src)
    texts, edits, seen, unlisted, literals = {}, {}, set(), [], {}
    for path in files:
        with open(os.path.join(args.src, path), encoding='latin-1', newline='') as source:
            text = texts[path] = source.read().replace('\r\n', '\n')
        code = blank(text)
        edits[path] = []  # (start, end, name of a table or '' for the macro)
        for start, end, at_file_scope in statements(code):
            found = declared(code, start, end, at_file_scope)
            if not found:
                continue
            match, storage, names, is_constant = found
            at = start + match.start('type')
            if names[0] in tables:
                seen.add(names[0])
                if storage != 'extern':
                    literals[names[0]] = (match['type'].strip(), text[start + code[start:end].index('=') + 1:end])
                edits[path].append((start + match.start('storage') if storage else at, end + 1, names[0]))
                continue
            if is_constant:
                continue
            missing = [n for n in names if n not in threadlocal and n not in left_alone]
            if missing and path.endswith('.c'):
                unlisted.append('%s:%d: %s' % (path, text.count('\n', 0, at) + 1, ' '.join(missing)))
            seen.update(names)
            if any(n in threadlocal for n in names):
                edits[path].append((at, at, ''))

    for path, text in texts.items():
        for start, end, table in sorted(edits[path], reverse=True):
            if not table:
                new = 'LWIP_PER_STACK '
            elif path.endswith('.h'):
                element, initialiser = literals[table]
                # the #line keeps the line numbers that debuggers show
                new = '\n#define %s ((%s [])%s)\n#line %d\n' % (
                    table, element, re.sub(r'\s+', ' ', initialiser).strip(), text.count('\n', 0, end) + 1)
            else:
                new = '\n' * text.count('\n', start, end)
            text = text[:start] + new + text[end:]
        write_if_changed(os.path.join(args.out, path), text)
    for path in set(source_files(args.out, [])) - set(files):
        os.remove(os.path.join(args.out, path))

    for line in unlisted:
        print('tlsify: not in the list: ' + line, file=sys.stderr)
    print('tlsify: %d files, %d listed variables' % (len(files), len(seen & (threadlocal | tables))))
    return 1 if unlisted else 0


if __name__ == '__main__':
    sys.exit(main())
