#!/usr/bin/env bash
# limits.sh - a service with small limits: each one that is reached gives the kernel's error, is counted by its name, and is gone
# with the load:
#   - more connections than the backlog holds, more than there are sockets (both ways), more listeners than there are places
#   - more programs than client slots; send memory and packet buffers used up by peers that do not read
#   - eight processes on one listener: how many are woken for a connection
# With --mode inline a program that does nothing else has the stack: it is one of the clients, and has one socket.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
limits=$e2e_dir/limits.py
hosted=1
host=0
[ "$mode" != inline ] || host=1

# start NAME SIDE ARG...: a program of limits.py that waits for `next` and `over`
start() {
	local name=$1 side=$2 gate
	shift 2
	rm -f "$work/$name.in"
	mkfifo "$work/$name.in"
	exec {gate}<>"$work/$name.in"
	export PKE_GATE=$work/$name.in
	spawn "$name" "$side" "$python" "$limits" "$@"
	eval "gate_$name=$gate pid_$name=$spawned"
}
# next NAME: lets it go on. over NAME: tells it to end, and waits for that
next() { eval "echo go >&\$gate_$1"; }
over() {
	local pid="pid_$1"
	eval "printf 'over\nover\n' >&\$gate_$1; exec {gate_$1}>&-" # some wait twice
	wait_until 20 process_gone "${!pid}" || because "$1 does not end: $(tail -1 "$work/$1.log")"
}
# says NAME SECONDS TEXT: it has said so
says() {
	wait_until "$2" grep -q "$3" "$work/$1.log" || because "$1 says '$(tail -1 "$work/$1.log")', not '$3'"
}
# grew NAME BEFORE: a counter has moved
grew() { [ "$(stat "$1")" -gt "$2" ] || because "$1 stays at $2"; }

backlog() {
	local before
	before=$(stat drop_syn_backlog)
	start queue p queue "$addr_p" 7001 3 && says queue 10 listening || return
	start many k many "$addr_p" 7001 10 && says many 10 '^open' || return
	remark "$(grep ^open "$work/many.log")"
	[ "$(awk '/^open/ { print $2; exit }' "$work/many.log")" = 4 ] || because "backlog 3: $(tail -1 "$work/many.log")" || return
	grew drop_syn_backlog "$before" || return
	next queue
	says queue 10 'accepted 10' || return # those that were dropped have asked again
	over many && over queue
}

sockets_in() {
	local before
	before=$(stat drop_syn_no_endpoint)
	start take p take "$addr_p" 7002 && says take 10 listening || return
	start many k many "$addr_p" 7002 200 && says many 20 '^open' || return
	remark "$(grep ^open "$work/many.log") of 200"
	grew drop_syn_no_endpoint "$before" || return
	next many && says many 10 closed || return
	next take && says take 10 closed || return
	over many || return
	wait_until 10 eval '[ "$(stat endpoints_used)" -le $((2 + host)) ]' || because "endpoints_used stays at $(stat endpoints_used)" || return
	start again k many "$addr_p" 7002 50 && says again 10 '^open 50 *$' || return
	over again && over take
}

sockets_out() {
	start take k take "$addr_k" 7003 && says take 10 listening || return
	start many p many "$addr_k" 7003 200 && says many 20 '^open' || return
	remark "$(grep ^open "$work/many.log") of 200"
	grep -qE '^open 1[0-9]+ ENOBUFS=[0-9]+$' "$work/many.log" || because "$(tail -1 "$work/many.log")" || return
	next many && says many 10 closed || return
	over many && next take && says take 10 closed || return
	start again p many "$addr_k" 7003 50 && says again 10 '^open 50 *$' || return
	over again && over take
}

listeners() {
	local round
	for round in 1 2; do
		start listeners p listeners "$addr_p" 8000 140 && says listeners 20 '^open' || return
		remark "$(grep ^open "$work/listeners.log") of 140"
		grep -qE '^open 1[12][0-9] ENOBUFS=[0-9]+$' "$work/listeners.log" || because "$(tail -1 "$work/listeners.log")" || return
		next listeners && says listeners 10 closed && over listeners || return
	done
}

clients() {
	local i
	for i in 1 2 3 4 5 6; do
		start "take$i" p take 0.0.0.0 "710$i" && says "take$i" 10 listening || return
	done
	stat_is clients_attached $((4 + host)) || because "clients_attached is $(stat clients_attached), not $((4 + host))" || return
	grep -qh 'client slots are taken' "$work/take5.log" || because "the fifth says: $(tail -1 "$work/take5.log")" || return
	# the kernel serves those
	start loop k many 127.0.0.1 7106 3 && says loop 10 '^open 3' && over loop || return
	for i in 1 2 3 4 5 6; do
		over "take$i" || return
	done
	wait_until 10 stat_is clients_attached $host || because "clients_attached stays at $(stat clients_attached)" || return
	start take p take "$addr_p" 7110 && says take 10 listening || return
	start many k many "$addr_p" 7110 3 && says many 10 '^open 3' || return
	over many && over take
}

send_memory() {
	local total
	total=$(stat blocks_free)
	start sink k sink "$addr_k" 7004 && says sink 10 listening || return
	start fill p fill "$addr_k" 7004 12 && says fill 60 '^stuck' || return
	remark "$(grep ^stuck "$work/fill.log") bytes, $(stat blocks_free) of $total blocks left"
	[ "$(stat blocks_free)" -lt $((total / 4)) ] || because "not short: $(stat blocks_free) of $total blocks left" || return
	next sink && next fill
	says fill 60 done || return
	over fill && over sink
}

packet_buffers() {
	local before
	before=$(stat drop_rx_pressure)
	start sink p sink "$addr_p" 7005 && says sink 10 listening || return
	start source k source "$addr_p" 7005 24 1000000 && says source 10 sent || return
	sleep 3
	remark "$(stat buffers_free) buffers left, $(($(stat drop_rx_pressure) - before)) dropped"
	grew drop_rx_pressure "$before" || return
	k_raw ping -c 1 -W 2 "$addr_p" >/dev/null || because "no answer to ping under pressure" || return
	next sink
	says source 60 'answers ok' || return
	over source && over sink
}

# herd MODE MOST: so many wake-ups for 100 connections at most
herd() {
	local before woken
	start herd p herd "$1" "$addr_p" 7006 8 && says herd 10 listening || return
	sleep 0.3
	before=$(stat wakeups_sent)
	k_raw "$python" "$limits" knock "$addr_p" 7006 100 >"$work/knock.log" 2>&1 || because "$(tail -1 "$work/knock.log")" || return
	woken=$(($(stat wakeups_sent) - before))
	remark "$woken wake-ups for 100 connections"
	over herd || return
	[ "$woken" -le "$2" ] || because "$woken wake-ups"
}

up tap 'max_sockets = 128;' "max_clients = $((4 + host));" 'send_memory_mb = 4;' 'send_buffer = 524288;' 'packet_buffers = 4096;' 'time_wait_ms = 100;'
memory_note
scenario "$link: more connections than the backlog holds" backlog
scenario "$link: accepted connections without a socket left" sockets_in
scenario "$link: outgoing connections without a socket left" sockets_out
scenario "$link: more programs than client slots" clients
scenario "$link: send memory used up" send_memory
scenario "$link: packet buffers used up" packet_buffers
apps_end
scenario "$link: all memory comes back" memory_back 30
scenario "$link: nothing was misunderstood" stat_is bad_client_input 0
link_down
up tap 'max_sockets = 512;' 'packet_buffers = 4096;' 'send_memory_mb = 16;'
memory_note
scenario "$link: more listeners than there are places" listeners
scenario "$link: eight processes in accept, one is woken" herd accept 150
scenario "$link: eight with EPOLLEXCLUSIVE, one is woken" herd exclusive 250
scenario "$link: eight in epoll_wait, all may be woken" herd epoll 900
apps_end
scenario "$link: all memory comes back after those" memory_back 30
link_down
finish
