#!/usr/bin/env python3
"""schema.py SCHEMA [FILE]: checks a JSON document (standard input without FILE) against doc/schema/SCHEMA.json.

Ends with 1 and says where and why when it does not fit. Schemas are closed (additionalProperties is false where they list
properties), so a new member of the output needs a line in its schema.
"""
import json
import os
import sys

import jsonschema

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def check(name, document):
    with open(os.path.join(ROOT, 'doc', 'schema', name + '.json'), encoding='utf-8') as file:
        schema = json.load(file)
    jsonschema.Draft7Validator.check_schema(schema)
    errors = sorted(jsonschema.Draft7Validator(schema).iter_errors(document), key=lambda e: list(e.path))
    return ['/'.join(map(str, e.path)) + ': ' + e.message for e in errors]


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    with (open(sys.argv[2], encoding='utf-8') if len(sys.argv) == 3 else sys.stdin) as file:
        document = json.load(file)
    errors = check(sys.argv[1], document)
    for error in errors[:5]:
        print(error[:300], file=sys.stderr)
    sys.exit(1 if errors else 0)


if __name__ == '__main__':
    main()
