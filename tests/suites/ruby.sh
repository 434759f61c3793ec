#!/usr/bin/env bash
# ruby.sh: the socket tests of Ruby 3.1 (source package ruby3.1, test/socket and test/net/http), each file in a process of its own.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

sources=$("$suites_dir/fetch" ruby3.1) || die "no sources of Ruby"
ruby=$(command -v ruby3.1 || command -v ruby) || die "install ruby (tools/install-deps --suites)"
files="test/socket/test_*.rb test/io/nonblock/test_*.rb test/io/wait/test_*.rb test/drb/test_drb.rb test/net/http/test_http.rb test/net/protocol/test_*.rb"
[ -z "$quick" ] || files="test/socket/test_*.rb"
files=${PKS_FILES:-$files}

run() {
	local leg=$1 file=$2
	shift 2
	(cd "$sources" && under "$leg" timeout -k 5 100 "$ruby" -W0 -I tool/lib -I "$(dirname "$file")" test/runner.rb -v "$file" "$@") </dev/null
}

# results LOG: which tests ran, and what the list at the end says of them
results() {
	awk '/^\[ *[0-9]+\/[0-9]+\] .*#test_/ { name = $0; sub(/^\[[^]]*\] /, "", name); sub(/ = .*/, "", name); if (!(name in is)) is[name] = "pass" }
		/^ +[0-9]+\) (Failure|Error|Skipped|Timeout):$/ { kind = $2 == "Skipped:" ? "skip" : "fail"; next }
		kind { name = $1; sub(/:$/, "", name); if (name ~ /#/) is[name] = kind; kind = "" }
		END { for (name in is) print is[name], name }' "$1"
}

suite_run() {
	local file
	mkdir -p "$work/$1"
	: >"$2"
	for file in $(cd "$sources" && ls $files); do
		run "$1" "$file" >"$work/$1/${file##*/}.log" 2>&1
		results "$work/$1/${file##*/}.log" >>"$2"
		grep -qE '^[0-9]+ tests, ' "$work/$1/${file##*/}.log" || echo "$suite/$1: ${file##*/} did not end well: $(tail -n 1 "$work/$1/${file##*/}.log" | cut -c1-100)"
	done
	sort -o "$2" "$2"
}

suite_one() {
	local file
	file=$(grep -l "${2%#*}" "$work/$1"/*.log | head -n 1)
	file=$(basename "${file%.log}")
	run "$1" "$(cd "$sources" && ls $files | grep "/$file$" | head -n 1)" -n "${2#*#}" | grep -qE '^1 tests, .* 0 failures, 0 errors, 0 skips'
}

suite ruby kernel loopback
