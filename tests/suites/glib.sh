#!/usr/bin/env bash
# glib.sh: GLib's installed tests of sockets, streams, D-Bus connections, poll and child processes (package libglib2.0-tests, unpacked
# beside the sources of the other suites and not installed).
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

unpacked libglib2.0-tests
place=$place/usr/libexec/installed-tests/glib
tests="socket socket-listener socket-service socket-address gsocketclient-slow pollable network-address network-monitor unix-streams unix-fd
	proxy-test tls-bindings stream-rw_all io-channel io-channel-basic io-stream mainloop spawn-test spawn-singlethread spawn-multithreaded unix
	gdbus-non-socket gdbus-connection gdbus-server-auth gdbus-connection-slow gdbus-threading gdbus-close-pending converter-stream
	inet-address resolver-parsing gsubprocess timeout sleepy-stream"
tests=${PKS_TESTS:-$tests}
[ -z "$quick" ] || tests="socket socket-listener socket-service pollable"

run() {
	local leg=$1 name=$2
	shift 2
	(cd "$place" && under "$leg" env LD_LIBRARY_PATH="$place" timeout -k 5 100 "./$name" --tap "$@") </dev/null 2>&1
}
results() { # FILE-OF-TAP PROGRAM
	awk -v p="$2" '/^(not )?ok [0-9]+ / { kind = $1 == "not" ? "fail" : /# SKIP/ ? "skip" : "pass"; print kind, p ":" ($1 == "not" ? $4 : $3) }' "$1"
}

suite_run() {
	local name
	: >"$2"
	for name in $tests; do
		run "$1" "$name" >"$work/$1.$name.log"
		results "$work/$1.$name.log" "$name" >>"$2"
	done
}
suite_one() {
	run "$1" "${2%%:*}" -p "${2#*:}" >"$work/one.log"
	results "$work/one.log" "${2%%:*}" | grep -qxF "pass $2"
}

suite glib kernel loopback
