#!/usr/bin/env bash
# haproxy.sh: HAProxy's regression tests (source package haproxy, reg-tests) by varnishtest (packages varnish and libvarnishapi3,
# unpacked and not installed): its clients and servers, the installed haproxy, and the listeners that it hands over to it.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

sources=$("$suites_dir/fetch" haproxy) || die "no sources of HAProxy"
command -v haproxy >/dev/null || die "install haproxy (tools/install-deps --suites)"
unpacked varnish libvarnishapi3
libraries=$(dirname "$(find "$place" -name 'libvarnishapi.so*' | head -n 1)"):$place/usr/lib/varnish
pattern=${PKS_TESTS:-.}
[ -z "$quick" ] || pattern=${PKS_TESTS:-'/(connection|http-messaging|seamless-reload|server)/'}

one() {
	(cd "$sources" && under "$1" env LD_LIBRARY_PATH="$libraries" HAPROXY_PROGRAM="$(command -v haproxy)" \
		timeout -k 5 90 "$place/usr/bin/varnishtest" -t 60 "$2.vtc") </dev/null
}

suite_run() {
	local name rc
	mkdir -p "$work/$1"
	: >"$2"
	while read -r name; do
		# what does not pass on the kernel (another version, no varnish extras) is not asked again
		[ "$1" = native ] || grep -qxF "pass $name" "$work/native.out" || continue
		one "$1" "$name" >"$work/$1/${name//\//.}.log" 2>&1
		rc=$?
		case $rc in 0) echo "pass $name" ;; 77) echo "skip $name" ;; *) echo "fail $name" ;; esac >>"$2"
	done < <(cd "$sources" && find reg-tests -name '*.vtc' | sed 's/\.vtc$//' | grep -E "$pattern" | sort)
}
suite_one() { one "$1" "$2"; }

suite haproxy kernel loopback
