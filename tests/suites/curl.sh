#!/usr/bin/env bash
# curl.sh: curl's own tests (source package curl) with the installed curl, against the HTTP, FTP, mail, telnet, TFTP, RTSP, SOCKS and other
# servers that come with them. PKS_TESTS chooses: numbers, "FROM to TO", or a keyword.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

sources=$("$suites_dir/fetch" curl) || die "no sources of curl"
command -v curl >/dev/null || die "install curl (tools/install-deps --suites)"
made=$cache/build-curl
if [ ! -x "$made/tests/server/sws" ] || [ ! -x "$made/src/curl" ]; then
	rm -rf "$made"
	cp -r "$sources" "$made"
	(cd "$made" && ./configure --without-ssl --disable-shared --disable-ldap --without-brotli --without-zstd --without-librtmp --without-libpsl &&
		make -j2 -C tests/server) >"$work/make.log" 2>&1 || die "curl's test servers do not build: $(tail -n 3 "$work/make.log")"
	ln -sf "$(command -v curl)" "$made/src/curl"
fi
# between them are those that want programs of curl's own build; an ssh server or HTTP/2 not asked for
tests=${PKS_TESTS:-'1 to 499 800 to 1499 !SCP !SFTP !HTTP/2'}
[ -z "$quick" ] || tests=${PKS_TESTS:-'1 to 200'}

run() {
	local leg=$1
	shift
	(cd "$made/tests" && under "$leg" env USER=root timeout -k 5 "${PKS_LIMIT_S:-1500}" perl runtests.pl -n -a -am "$@") </dev/null 2>&1
}

# results LOG: with -am there is a line "PASS: 1 - name" for each
results() { awk '/^PASS: [0-9]+/ { print "pass", $2 } /^FAIL: [0-9]+/ { print "fail", $2 } /^SKIP: [0-9]+/ { print "skip", $2 }' "$1"; }

suite_run() {
	# shellcheck disable=SC2086 # words
	run "$1" $tests >"$work/$1.log"
	results "$work/$1.log" >"$2"
}
suite_one() {
	run "$1" "$2" >"$work/one.log"
	results "$work/one.log" | grep -qxF "pass $2"
}

suite curl kernel loopback
