#!/usr/bin/env bash
# libevent.sh: libevent's regression tests (source package libevent), each in a process of its own, over epoll, poll and select.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

sources=$("$suites_dir/fetch" libevent) || die "no sources of libevent"
made=$cache/build-libevent
if [ ! -x "$made/bin/regress" ]; then
	{ cmake -S "$sources" -B "$made" -DEVENT__DISABLE_MBEDTLS=ON -DEVENT__LIBRARY_TYPE=STATIC -DEVENT__DISABLE_SAMPLES=ON \
		-DEVENT__DISABLE_BENCHMARK=ON && make -C "$made" -j2 regress; } >"$work/make.log" 2>&1 ||
		die "libevent does not build: $(tail -n 3 "$work/make.log")"
fi
backends="epoll poll select"
without='^(util/|evutil/|rpc/|thread/|iocp/|strbuf)|monotonic|/iocp'
pattern=${PKS_TESTS:-.}

# one LEG BACKEND/TEST
one() {
	local name env=()
	case $2 in
	epoll/*) env=(EVENT_NOPOLL=1 EVENT_NOSELECT=1) ;;
	poll/*) env=(EVENT_NOEPOLL=1 EVENT_NOSELECT=1) ;;
	select/*) env=(EVENT_NOEPOLL=1 EVENT_NOPOLL=1) ;;
	esac
	name=${2#*/}
	(cd "$made" && under "$1" env "${env[@]}" timeout -k 5 60 ./bin/regress --quiet "$name") </dev/null
}

suite_run() {
	local backend name rc
	mkdir -p "$work/$1"
	: >"$2"
	for backend in $backends; do
		while read -r name; do
			one "$1" "$backend/$name" >"$work/$1/$backend.${name//\//.}.log" 2>&1
			rc=$?
			if grep -q SKIPPED "$work/$1/$backend.${name//\//.}.log"; then
				echo "skip $backend/$name"
			elif [ $rc = 0 ]; then
				echo "pass $backend/$name"
			else
				echo "fail $backend/$name"
			fi >>"$2"
		done < <("$made/bin/regress" --list-tests | awk '{ print $1 }' | grep -vE "$without" | grep -E "$pattern" | sort -u)
	done
}
suite_one() { one "$1" "$2"; }

suite libevent kernel loopback
