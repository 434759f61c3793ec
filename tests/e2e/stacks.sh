#!/usr/bin/env bash
# stacks.sh - two stacks over a port without RSS (TAP and af_packet):
#   - 2,000 accepted connections are spread over both within 10 %
#   - 2,000 outgoing connections too
#   - a load over both without an error
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# spread NAME: the counter's figures of both stacks are within 10 % of each other
spread() {
	local a b
	a=$(stat "$1" 0) b=$(stat "$1" 1)
	remark "$a and $b"
	[ $((a + b)) -ge 2000 ] || because "$a + $b connections, not 2000" || return
	[ $((a * 10)) -ge $((b * 9)) ] && [ $((b * 10)) -ge $((a * 9)) ] || because "$a and $b"
}

# hold_start SIDE ADDR PORT COUNT: a program that keeps connections open until its standard input ends
hold_start() {
	local side=$1
	shift
	rm -f "$work/gate"
	mkfifo "$work/gate"
	exec 9<>"$work/gate"
	spawn hold "$side" "$python" "$e2e_dir/tcp.py" hold "$@" <"$work/gate" 9>&-
	holder=$spawned
	wait_until 60 eval "grep -q open '$work/hold.log' || process_gone $holder"
	grep -q open "$work/hold.log" || because "$(tail -1 "$work/hold.log")"
}
hold_end() {
	exec 9>&-
	wait_until 20 process_gone "$holder" || because "the program does not end" || return
	wait "$holder" || because "$(tail -1 "$work/hold.log")"
}

accepted() {
	files_raise
	redis_start p 7001 --maxclients 3000 || return
	hold_start k "$addr_p" 7001 2000 || return
	spread tcp_accepted || return
	redis_load p 7001 -c 50 -n 50000 -t set,get || return
	hold_end
}

connected() {
	files_raise
	spawn serve k "$python" "$e2e_dir/tcp.py" serve "$addr_k" 7100
	wait_until 10 grep -q serving "$work/serve.log" || because "no server" || return
	hold_start p "$addr_k" 7100 2000 || return
	spread tcp_connected || return
	hold_end
}

[ $# -gt 0 ] || set -- tap afpacket
for kind; do
	if [ "$mode" = inline ]; then
		skipped "$kind: connections are spread over two stacks" "with mode = inline there is one"
		continue
	fi
	up "$kind" 'stacks = 2;' 'cores = "0-1";'
	memory_note
	scenario "$link: accepted connections are spread over two stacks" accepted
	scenario "$link: outgoing connections are spread over two stacks" connected
	apps_end
	scenario "$link: all memory comes back" memory_back
	link_down
done
finish
