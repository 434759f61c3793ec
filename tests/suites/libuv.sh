#!/usr/bin/env bash
# libuv.sh: libuv's own tests (source package libuv1), each in a process of its own. PKS_TESTS chooses by a regular expression.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

sources=$("$suites_dir/fetch" libuv1) || die "no sources of libuv"
made=$cache/build-libuv
if [ ! -x "$made/uv_run_tests" ]; then
	{ cmake -S "$sources" -B "$made" -DCMAKE_BUILD_TYPE=RelWithDebInfo && make -C "$made" -j2 uv_run_tests; } >"$work/make.log" 2>&1 ||
		die "libuv does not build: $(tail -n 3 "$work/make.log")"
fi
# what has nothing to do with descriptors
without='^(fs_|threadpool_|thread_|dl|mutex|semaphore|condvar|barrier|strscpy|utf8|idna|strtok|process_title|platform_output|hrtime|random|test_macros)'
pattern=${PKS_TESTS:-.}
[ -z "$quick" ] || pattern=${PKS_TESTS:-'^(tcp_(ping_pong|bind|connect|close|write|open|read|rst|unexpected|shutdown|try|alloc|create|flags)|udp_|poll_|pipe_ping|fork_|listen|shutdown|accept|connection_fail|ipc_|multiple_listen|delayed_accept|getsockname)'}

one() { (cd "$made" && UV_RUN_AS_ROOT=1 under "$1" timeout -k 5 60 ./uv_run_tests "$2") </dev/null; }

suite_run() {
	local name rc
	mkdir -p "$work/$1"
	: >"$2"
	while read -r name; do
		one "$1" "$name" >"$work/$1/$name.log" 2>&1
		rc=$?
		if grep -qE '^(ok|not ok) .* # SKIP' "$work/$1/$name.log"; then
			echo "skip $name"
		elif [ $rc = 0 ]; then
			echo "pass $name"
		else
			echo "fail $name"
		fi >>"$2"
	done < <(cd "$made" && UV_RUN_AS_ROOT=1 ./uv_run_tests --list | awk '{ print $1 }' | grep -vE "$without" | grep -E "$pattern" | sort -u)
}
suite_one() { one "$1" "$2"; }

suite libuv kernel loopback
