#!/usr/bin/env bash
# lossy.sh [SCRIPT...|all] - the programs of other scripts (python_apps and redis_more unless told) over a link that loses 2 % of
# the frames, doubles 1 % and holds 3 % back for 4 ms, in both directions (af_packet on a veth pair, impair.c between). Contents
# are compared by SHA-256 as always.
#   PKE_LOSSY_KIND=kernel: the same with the kernel's TCP on both sides
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../../tools/lib.sh"

[ $# -gt 0 ] || set -- python_apps redis_more
[ "$*" != all ] || set -- redis_more nginx haproxy postgres mariadb ssh net_tools servers python_apps runtimes
# figures that need a perfect link are not asked for: requests are few, time limits long
export PKE_IMPAIR=${PKE_IMPAIR:-20 10 30 4000 1} PKE_QUICK=1 limit_s=200
passed=0
failed=0
out=$(mktemp)
child=
trap '[ -z "$child" ] || process_end "$child" 30; rm -f "$out"' EXIT
trap 'exit 130' INT TERM HUP
for script; do
	echo "  - $script"
	"$here/$script.sh" "${PKE_LOSSY_KIND:-afpacket}" >"$out" 2>&1 &
	child=$!
	wait "$child"
	child=
	line=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$out" | tail -1)
	# the sums are this script's own, so that they are not counted twice
	grep -vE '^[0-9]+ passed, [0-9]+ failed$' "$out"
	if [ -n "$line" ]; then
		passed=$((passed + ${line%% *}))
		line=${line#*, }
		failed=$((failed + ${line%% *}))
	else
		echo "FAIL  $script over a lossy link: ended early"
		failed=$((failed + 1))
	fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
