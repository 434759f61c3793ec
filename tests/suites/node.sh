#!/usr/bin/env bash
# node.sh: Node's own tests of net, dgram, http, cluster, child processes and standard streams (source package nodejs), each in a process
# of its own, by the node that is installed. PKS_TESTS chooses by a regular expression.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

sources=$("$suites_dir/fetch" nodejs) || die "no sources of Node"
node=$(command -v node) || die "install nodejs (tools/install-deps --suites)"
pattern='^(parallel|sequential)/test-(net|dgram|cluster|http|https|http2|tls|pipe|stdio|stdin|stdout|child-process|socket|dns|inspector-port|listen|process-(getactive|ref|title)|handle|timers-socket)'
pattern=${PKS_TESTS:-$pattern}
[ -z "$quick" ] || pattern=${PKS_TESTS:-'^parallel/test-(net|dgram|pipe)'}

# one LEG NAME: a test is a script; its first lines name the options it wants. Paths are short, as sockets of the file system end after
# 108 bytes of theirs
one() {
	local flags
	flags=$(sed -nE 's,^// Flags: ,,p' "$sources/test/$2.js" | tr '\n' ' ')
	# shellcheck disable=SC2086
	(cd "$sources" && under "$1" env NODE_TEST_DIR="$work" TEST_THREAD_ID="${1:0:1}" timeout -k 5 60 "$node" $flags "test/$2.js") </dev/null
}

suite_run() {
	local name rc
	mkdir -p "$work/$1"
	: >"$2"
	while read -r name; do
		# what does not pass on the kernel (another version of Node, no IPv6, no network) is not asked again
		[ "$1" = native ] || grep -qxF "pass $name" "$work/native.out" || continue
		one "$1" "$name" >"$work/$1/${name//\//.}.log" 2>&1
		rc=$?
		if [ $rc != 0 ]; then
			echo "fail $name"
		elif grep -q '^1\.\.0 # Skipped' "$work/$1/${name//\//.}.log"; then
			echo "skip $name"
		else
			echo "pass $name"
		fi >>"$2"
	done < <(cd "$sources/test" && find parallel sequential -name 'test-*.js' | sed 's/\.js$//' | grep -E "$pattern" | sort)
}
suite_one() { one "$1" "$2"; }

suite node kernel loopback
