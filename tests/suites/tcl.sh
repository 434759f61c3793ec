#!/usr/bin/env bash
# tcl.sh: Tcl's own tests of sockets, channels, events and HTTP (source package tcl8.6), by the tclsh that is installed. PKS_FILES chooses
# the files.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

sources=$("$suites_dir/fetch" tcl8.6) || die "no sources of Tcl"
command -v tclsh8.6 >/dev/null || die "install tcl8.6 (tools/install-deps --suites)"
files="socket io ioCmd chanio http event exec"
[ -z "$quick" ] || files="socket http event"
files=${PKS_FILES:-$files}

# run LEG FILE OPTIONS...
run() {
	local leg=$1 file=$2
	shift 2
	mkdir -p "$work/tmp.$leg"
	(cd "$sources/tests" && under "$leg" timeout -k 5 200 tclsh8.6 "$file.test" -tmpdir "$work/tmp.$leg" -verbose ps "$@") </dev/null
}

# results LOG FILE: "++++ name PASSED", "++++ name SKIPPED: why", "==== name what it is FAILED"
results() {
	awk -v f="$2" '/^\+\+\+\+ .* PASSED$/ { print "pass", f "/" $2 } /^\+\+\+\+ .* SKIPPED: / { print "skip", f "/" $2 }
		/^==== .* FAILED$/ && !seen[$2]++ { print "fail", f "/" $2 }' "$1"
}

suite_run() {
	local file
	: >"$2"
	for file in $files; do
		run "$1" "$file" >"$work/$1.$file.log" 2>&1
		results "$work/$1.$file.log" "$file" >>"$2"
	done
}
suite_one() {
	run "$1" "${2%%/*}" -match "${2#*/}" >"$work/one.log" 2>&1
	results "$work/one.log" "${2%%/*}" | grep -qxF "pass $2"
}

suite tcl kernel loopback
