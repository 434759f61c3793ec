#!/usr/bin/env bash
# perl.sh: Perl's own tests of sockets, IO, select and its network modules (source package perl), each script in a process of its own, by
# the perl that is installed. PKS_TESTS chooses by a regular expression.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

sources=$("$suites_dir/fetch" perl) || die "no sources of Perl"
pattern=${PKS_TESTS:-.}

places="dist/IO cpan/IO-Socket-IP cpan/Socket cpan/libnet cpan/HTTP-Tiny dist/Net-Ping cpan/Sys-Syslog ext/IPC-Open3 ext/POSIX cpan/Test-Harness"
[ -z "$quick" ] || places="dist/IO cpan/IO-Socket-IP cpan/Socket"

# one LEG NAME: a script passes when every assertion that it planned is there and holds
one() {
	local place=${2%%/t/*}
	(cd "$sources/$place" && under "$1" timeout -k 5 120 perl -I. -It/lib "t/${2#*/t/}") </dev/null >"$work/one.log" 2>&1 &&
		! grep -E '^not ok' "$work/one.log" | grep -qvE '# TODO'
}

suite_run() {
	local name
	mkdir -p "$work/$1"
	: >"$2"
	while read -r name; do
		if ! one "$1" "$name"; then
			echo "fail $name"
		elif grep -qE '^1\.\.0( |$)' "$work/one.log"; then
			echo "skip $name"
		else
			echo "pass $name"
		fi >>"$2"
		mv "$work/one.log" "$work/$1/${name//\//.}.log"
	done < <(cd "$sources" && for place in $places; do ls "$place"/t/*.t; done | grep -E "$pattern")
}
suite_one() { one "$1" "$2"; }

suite perl kernel loopback
