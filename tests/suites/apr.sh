#!/usr/bin/env bash
# apr.sh: the tests of the Apache Portable Runtime (source package apr): sockets, options, poll, pipes, processes, files, sendfile.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

sources=$("$suites_dir/fetch" apr) || die "no sources of APR"
made=$cache/build-apr
if [ ! -x "$made/test/testall" ]; then
	rm -rf "$made"
	cp -r "$sources" "$made"
	(cd "$made" && ./configure --with-pic && make -j2 && cd test && make -j2 all) >"$work/make.log" 2>&1 || [ -x "$made/test/testall" ] ||
		die "APR does not build: $(tail -n 3 "$work/make.log")"
fi
tests="testsock testsockets testsockopt testpoll testpipe testproc testdup testfile testfmt testipsub testthread testcond testescape"
tests=${PKS_TESTS:-$tests}
[ -z "$quick" ] || tests="testsock testsockets testsockopt testpoll"

# -v names each test as it begins and says what failed
run() { (cd "$made/test" && under "$1" timeout -k 5 100 ./testall -v "$2") </dev/null; }

# one result for each of the program's suites: it says only how many failed
suite_run() {
	local name
	: >"$2"
	for name in $tests; do
		if run "$1" "$name" >"$work/$1.$name.log" 2>&1 && grep -q 'All tests passed' "$work/$1.$name.log"; then
			echo "pass $name"
		else
			echo "fail $name"
		fi >>"$2"
	done
	for name in blocking timeout nonblocking; do
		if (cd "$made/test" && under "$1" timeout -k 5 60 ./sendfile client "$name" startserver) </dev/null >"$work/$1.sendfile.$name.log" 2>&1; then
			echo "pass sendfile/$name"
		else
			echo "fail sendfile/$name"
		fi >>"$2"
	done
}

suite apr kernel loopback
