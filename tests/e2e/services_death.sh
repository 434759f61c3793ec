#!/usr/bin/env bash
# services_death.sh [afpacket] - one program with two services, and the first of them is killed before the program's library knows it:
#   - a wildcard listener that begins then, or listens again, is there at the other and at the kernel
#   - sockets that go over exec or in a message then, or are in a message by then, go on at the other; what comes home is the same socket
#   - strict in the first file; and, while both live: a child for which the first has no room, buffers, accept in turn
# The links and the peers are those of services.sh; what the program checks is in services_death.py.
. "$(dirname "${BASH_SOURCE[0]}")/services.sh"

# goes_on CASE: b's service is there, and is killed when the case says so
goes_on() {
	local case=$1 rc
	b_start || return
	: >"$work/death.log"
	rm -f "$work/death.in"
	mkfifo "$work/death.in"
	(exec_both timeout 60 "$python" "$e2e_dir/services_death.py" case "$work/world.json" "$case" <"$work/death.in" >"$work/death.out" 2>"$work/death.log") &
	spawned=$!
	pids+=("$spawned")
	exec {line}>"$work/death.in"
	wait_until 20 eval "grep -q '^ready' '$work/death.out' || process_gone $spawned"
	app_kill "$b_pid"
	b_pid=
	process_gone "$spawned" || echo >&$line
	exec {line}>&-
	wait "$spawned"
	rc=$?
	[ $rc = 0 ] || because "$(grep -v '^pronk' "$work/death.log" | tail -1), exit status $rc"
}

# with_both CASE OPTION...: both services live; options of b's
with_both() {
	local case=$1 conf_b=$work/b-options.conf rc
	local configs=(-c "$conf_b" -c "$conf")
	shift
	{ cat "$work/b.conf"; printf '%s\n' "$@"; } >"$conf_b"
	: >"$work/both.log"
	b_start || return
	both timeout 60 "$python" "$e2e_dir/services_death.py" case "$work/world.json" "$case" >"$work/both.out" 2>"$work/both.log"
	rc=$?
	b_stop
	[ $rc = 0 ] || because "exit status $rc: $(grep -v '^pronk' "$work/both.log" | head -1 | cut -c1-300)"
}

link_up afpacket 'linger_s = 1;'
second_link
configs=(-c "$conf_b" -c "$conf")
scenario "$link: the service gets ready" service_ready
scenario "$link: the peers" peers_start
for case in listens_where_it_can connects_by_the_kernel listens_again survives_exec travels comes_home dies_on_the_way; do
	scenario "$link: the first dies: ${case//_/ }" goes_on "$case"
done
echo 'strict = true;' >>"$conf_b"
scenario "$link: the first dies: strict" goes_on strict_refuses_what_is_lost
sed -i '/^strict/d' "$conf_b"
scenario "$link: no room for a child at the first" with_both child_without_room_at_b 'max_clients = 1;'
scenario "$link: buffers" with_both buffers_are_the_services_own 'receive_buffer = 131072;'
scenario "$link: accept takes from both in turn" with_both each_is_asked_in_turn
link_down
finish
