#!/usr/bin/env bash
# memcached.sh: memcached's own tests (t/*.t of source package memcached) over TCP, against the installed memcached.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

sources=$("$suites_dir/fetch" memcached) || die "no sources of memcached"
command -v memcached >/dev/null || die "install memcached (tools/install-deps --suites)"
place=$work/memcached
mkdir "$place"
cp -r "$sources/t" "$place/t"
gcc -O1 -o "$place/timedrun" "$sources/timedrun.c" >"$work/make.log" 2>&1 || die "timedrun does not build"
# In the place of a debug build's memcached: the installed one. It knows no relaxed_privileges, and the tests start it over TCP when its
# help does not speak of unix sockets.
cat >"$place/memcached-debug" <<-'END'
	#!/usr/bin/env bash
	[ "${1:-}" != -h ] || exec bash -c "memcached -h | sed 's/unix-socket/-/'"
	args=" $* "
	# shellcheck disable=SC2086 # the tests pass words
	exec memcached ${args/ -o relaxed_privileges / }
END
chmod +x "$place/memcached-debug"
# how the program was compiled and its sources' white space; extstore's own writes decide how long those take
without='^(00-startup|64bit|whitespace|unixsocket|ssl_|proxy|daemonize|.*extstore)'
wanted=${PKS_TESTS:-.}
[ -z "$quick" ] || wanted=${PKS_TESTS:-'^(cas|getset|incrdecr|noreply|udp|flags|touch|quit)$'}

# one LEG NAME: a script passes when every assertion that it planned is there and holds
one() {
	local log=$work/$1/$2.log
	(cd "$place" && under "$1" timeout -k 5 120 perl "t/$2.t") </dev/null >"$log" 2>&1 && ! grep -q '^not ok' "$log"
}

suite_run() {
	local name
	mkdir -p "$work/$1"
	: >"$2"
	while read -r name; do
		if ! one "$1" "$name"; then
			echo "fail $name"
		elif grep -qE '^1\.\.0( |$)' "$work/$1/$name.log"; then
			echo "skip $name"
		else
			echo "pass $name"
		fi >>"$2"
	done < <(cd "$place/t" && ls ./*.t | sed 's,^\./,,; s,\.t$,,' | grep -vE "$without" | grep -E "$wanted")
}
suite_one() { one "$1" "$2"; }

suite memcached kernel loopback
