#!/usr/bin/env bash
# services.sh [afpacket|kernel] - one program with two services, each with a network and a peer of its own, and with the kernel beside them:
#   - connections to both networks, behind a gateway, large data on both at once; pronkctl shows at each service its own
#   - a wildcard listener is there at both services and at the kernel: accept in every way, threads, edges, one-shot
#   - a listener on one of the addresses is there only; datagrams: wildcard, connected, unbound; options hold at all of them
#   - one epoll, poll and select of everything; idle, nothing burns
#   - fork, workers, exec, descriptors passed on
#   - redis-server answers on both networks and over loopback
#   - one service dies, cannot be started, is named twice; two files with mode = inline; LD_PRELOAD alone starts both
# With --mode inline the first service is a stack in the program. What the program checks is in services_*.py; over "kernel" it runs on the
# kernel's sockets alone: is the script right?
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
lossy=

addr_kb=198.18.56.1 addr_b=198.18.56.2 addr_beyond=203.0.113.9
conf_b=$work/b.conf
configs=()
b_pid=

# at_b COMMAND...: lib.sh's functions, about the second service
at_b() {
	local conf=$conf_b mode=dedicated
	"$@"
}

# what both have free; mode inline: the first has ended with each program
noted() { echo "${noted_endpoints:-0} ${noted_blocks:-0} ${noted_buffers:-0} ${noted_pcbs:-0}"; }
memories_note() {
	memory_note
	noted_a=$(noted)
	at_b memory_note
	noted_b=$(noted)
}
memories_back() {
	read -r noted_endpoints noted_blocks noted_buffers noted_pcbs <<<"$noted_a"
	memory_back || return
	read -r noted_endpoints noted_blocks noted_buffers noted_pcbs <<<"$noted_b"
	at_b memory_back
}

# the second link: as link_up's, with side k's end in the third namespace, which is also the gateway
second_link() {
	ns_m=${pke}m
	ip netns add "$ns_m"
	ip link add pkp2 netns "$ns_p" type veth peer name pkk2 netns "$ns_m"
	ip -n "$ns_m" link set lo up
	ip -n "$ns_m" addr add "$addr_beyond/32" dev lo
	ip -n "$ns_m" addr add "$addr_kb/24" dev pkk2
	ip -n "$ns_m" link set pkk2 up
	ip -n "$ns_p" link set pkp2 up
	# or the stack in a program would say that they leave checksums out
	quiet_in "$ns_k" ethtool -K pkk tx off
	quiet_in "$ns_m" ethtool -K pkk2 tx off
	if [ "$link" = kernel ]; then
		ip -n "$ns_p" addr add "$addr_b/24" dev pkp2
		ip -n "$ns_p" route add default via "$addr_kb"
	fi
	conf_write "$conf_b" 'device = "afpacket:pkp2";' "address = \"$addr_b/24\";" "gateway = \"$addr_kb\";" 'name = "b";' \
		'linger_s = 1;' 'autostart = false;'
	configs=(-c "$conf" -c "$conf_b")
}

# peer_start NAME NAMESPACE
peer_start() {
	: >"$work/peer-$1.log"
	ip netns exec "$2" "$python" "$e2e_dir/services.py" peer "$work/peer.$1" >"$work/peer-$1.log" 2>&1 &
	pids+=($!)
	apps+=($!)
	wait_until 10 grep -q ready "$work/peer-$1.log" || because "no peer: $(tail -1 "$work/peer-$1.log")"
}
peers_start() {
	local ctl=[] inline=false
	peer_start a "$ns_k" && peer_start b "$ns_m" && peer_start kernel "$ns_p" || return
	[ "$mode" != inline ] || inline=true
	[ "$link" = kernel ] || ctl="[\"$pronkctl\", \"-c\", \"$conf\"]"
	cat >"$work/world.json" <<-END
		{"places": {"a": ["$addr_p", "$addr_k", "$work/peer.a"], "b": ["$addr_b", "$addr_kb", "$work/peer.b"],
		"kernel": ["127.0.0.1", "127.0.0.1", "$work/peer.kernel"]},
		"beyond": "$addr_beyond", "ctl": $ctl, "names": {"a": "p", "b": "b"}, "inline": $inline}
	END
}

b_start() {
	[ "$link" != kernel ] || return 0
	service_spawn service-b "$conf_b" && b_pid=$spawned
	wait_until 5 ip netns exec "$ns_m" timeout 2 ping -c 1 -W 1 "$addr_b" || because "no answer to ping at $addr_b"
}
b_stop() {
	[ -z "$b_pid" ] || process_end "$b_pid"
	b_pid=
}

# exec_both PROGRAM...: under Pronk, with both services
exec_both() {
	[ "$link" != kernel ] || exec ip netns exec "$ns_p" "$@"
	exec ip netns exec "$ns_p" "$pronk" run "${configs[@]}" -- "$@"
}
both() { (exec_both "$@"); }

# lines_of_pronk FILE: how many lines of a program's output are the library's or the launcher's
lines_of_pronk() { grep -c '^pronk' "$1"; }

# cases NAME...: of services.py, in one program. Nothing is said by the way.
cases() {
	local rc
	: >"$work/cases.log"
	both timeout 120 "$python" "$e2e_dir/services.py" case "$work/world.json" "$@" >"$work/cases.out" 2>"$work/cases.log"
	rc=$?
	[ $rc = 0 ] || because "exit status $rc: $(grep -v '^pronk' "$work/cases.log" | head -1 | cut -c1-300)" || return
	[ "$(grep -c '^passed' "$work/cases.out")" = $# ] || because "$(grep -c '^passed' "$work/cases.out") of $# cases passed" || return
	[ "$(lines_of_pronk "$work/cases.log")" = 0 ] || because "it says: $(grep -m1 '^pronk' "$work/cases.log")" || return
	note=$(grep -v '^passed' "$work/cases.out" | tr '\n' ' ')
}

# the files the other way round; then with a second network that has the first one in it: the longer prefix counts, not the order
other_order() {
	local configs=(-c "$conf_b" -c "$conf")
	cases connections_to_both beyond_both_networks wildcard_epoll_edge udp_wildcard_epoll udp_unbound_sends_to_each
}
wider_network() {
	local conf_b=$work/b-wide.conf rc
	local configs=(-c "$conf_b" -c "$conf")
	b_stop
	sed "s|$addr_b/24|$addr_b/16|" "$work/b.conf" >"$conf_b"
	b_start && cases connections_to_both udp_unbound_sends_to_each
	rc=$?
	b_stop
	return $rc
}

redis_everywhere() {
	local where ns addr
	: >"$work/redis.log"
	(exec_both redis-server --port 7001 --bind 0.0.0.0 --protected-mode no --save '' --dir "$work" >"$work/redis.log" 2>&1) &
	redis_pid=$!
	pids+=("$redis_pid")
	wait_until 15 eval "grep -q 'Ready to accept connections' '$work/redis.log' || process_gone $redis_pid"
	! process_gone "$redis_pid" || because "redis-server ended: $(tail -1 "$work/redis.log")" || return
	for where in "$ns_k $addr_p" "$ns_m $addr_b" "$ns_p 127.0.0.1"; do
		read -r ns addr <<<"$where"
		[ "$(ip netns exec "$ns" timeout 10 redis-cli -h "$addr" -p 7001 incr asked)" -ge 1 ] 2>/dev/null || because "no answer at $addr" || return
	done
	ip netns exec "$ns_k" timeout 30 redis-benchmark -h "$addr_p" -p 7001 -q -c 20 -n 5000 -t set,get >"$work/load-a.log" 2>&1 &
	pids+=($!)
	ip netns exec "$ns_m" timeout 30 redis-benchmark -h "$addr_b" -p 7001 -q -c 20 -n 5000 -t set,get >"$work/load-b.log" 2>&1 ||
		because "redis-benchmark at $addr_b: $(tail -c 200 "$work/load-b.log")" || return
	wait $! || because "redis-benchmark at $addr_p: $(tail -c 200 "$work/load-a.log")" || return
	[ "$(ip netns exec "$ns_p" timeout 10 redis-cli -p 7001 incr asked)" = 4 ] || because "the counter is not 4" || return
	app_end "$redis_pid" || because "it does not end"
}

# a service is killed under a program that uses both
one_dies() {
	local rc
	: >"$work/victim.log" >"$work/victim.out"
	(exec_both timeout 60 "$python" "$e2e_dir/services.py" case "$work/world.json" victim >"$work/victim.out" 2>"$work/victim.log") &
	spawned=$!
	pids+=("$spawned")
	wait_until 20 eval "grep -q '^ready' '$work/victim.out' || process_gone $spawned"
	grep -q '^ready' "$work/victim.out" || because "it does not get ready: $(tail -1 "$work/victim.log")" || return
	app_kill "$b_pid"
	wait "$spawned"
	rc=$?
	[ $rc = 0 ] && grep -q '^survived' "$work/victim.out" || because "$(grep -v '^pronk' "$work/victim.log" | tail -1), exit status $rc" || return
	[ "$(lines_of_pronk "$work/victim.log")" = 1 ] || because "$(lines_of_pronk "$work/victim.log") lines speak of it: $(head -2 "$work/victim.log" | tr '\n' '|')" || return
	remark "$(grep -m1 '^pronk' "$work/victim.log" | sed "s|$work/||g")"
}

# alone PATTERN: with the second of $configs, which cannot be used, the first serves, and one line like PATTERN says so
alone() {
	local rc
	: >"$work/alone.log"
	both timeout 60 "$python" "$e2e_dir/services.py" case "$work/world.json" only_a >"$work/alone.out" 2>"$work/alone.log"
	rc=$?
	[ $rc = 0 ] || because "exit status $rc: $(grep -v '^pronk' "$work/alone.log" | head -1)" || return
	[ "$(lines_of_pronk "$work/alone.log")" = 1 ] || because "$(lines_of_pronk "$work/alone.log") lines: $(head -3 "$work/alone.log" | tr '\n' '|')" || return
	grep -qE "^pronk: .*$1" "$work/alone.log" || because "it says: $(head -1 "$work/alone.log")" || return
	remark "$(head -1 "$work/alone.log" | sed "s|$work/||g" | cut -c1-120)"
}

not_running() {
	b_stop
	alone "b\.sock"
}
not_startable() {
	local configs=(-c "$conf" -c "$work/b-none.conf")
	{ grep -v -e '^device = ' -e '^autostart = ' "$conf_b"; echo 'device = "afpacket:pk-none0";'; } >"$work/b-none.conf"
	alone "pk-none0"
}
named_twice() {
	local configs=(-c "$conf" -c "$work/b-again.conf")
	{ grep -v '^name = ' "$conf_b"; echo 'name = "p";'; } >"$work/b-again.conf"
	alone "b-again\.conf"
}
two_inline() {
	local configs=(-c "$conf" -c "$work/b-inline.conf")
	{ grep -v '^autostart = ' "$conf_b"; echo 'mode = "inline";'; } >"$work/b-inline.conf"
	alone "b-inline\.conf.*inline"
}

services_gone() { ! ip netns pids "$ns_p" | xargs -I{} cat /proc/{}/comm 2>/dev/null | grep -qx pronkd; }
# with the preload library alone, nothing runs before; both services end after their last program
autostarted() {
	local rc
	service_stop
	b_stop
	sed -i '/^autostart = /d' "$conf_b"
	: >"$work/preload.log"
	ip netns exec "$ns_p" env PRONK_CONFIG="$conf:$conf_b" LD_PRELOAD="$libpronk" timeout 60 "$python" "$e2e_dir/services.py" case "$work/world.json" \
		connections_to_both wildcard_epoll >"$work/preload.out" 2>"$work/preload.log"
	rc=$?
	[ $rc = 0 ] || because "exit status $rc: $(tail -1 "$work/preload.log")" || return
	[ ! -s "$work/preload.log" ] || because "it says: $(head -1 "$work/preload.log")" || return
	wait_until 20 services_gone || because "the services do not end after their last program"
}

# check_says: pronk check about both, and pronk run of a list that is none
check_says() {
	local said rc
	said=$(p_raw timeout 20 "$pronk" check "${configs[@]}" 2>&1)
	rc=$?
	[ "$(grep -cE '^(ok|note|warning|missing) +files\.' <<<"$said")" = 7 ] && grep -qE '^ok +files\.service ' <<<"$said" && grep -qE '^ok +files\.network ' <<<"$said" ||
		because "check ($rc): $(grep files <<<"$said" | head -3)" || return
	said=$(p_raw timeout 20 "$pronk" check -c "$conf" -c "$work/b-again.conf" --json 2>&1) && because "check takes one service twice" && return 1
	"$python" -c 'import json, sys; d = json.load(sys.stdin); sys.exit([i["state"] for i in d["items"] if i["id"] == "files.service"] != ["missing"] or len(d["files"]) != 2)' <<<"$said" ||
		because "check --json: $(head -c 200 <<<"$said")" || return
	cp "$conf" "$work/b:c.conf"
	said=$(p_raw "$pronk" run -c "$conf" -c "$work/b:c.conf" -- true 2>&1)
	rc=$?
	[ $rc = 125 ] && [[ $said == "pronk: $work/b:c.conf: a colon separates files in PRONK_CONFIG"* ]] || because "a colon ($rc): $said" || return
	said=$(p_raw "$pronk" run $(printf -- '-c /%s ' 1 2 3 4 5 6 7 8 9) -- true 2>&1) && because "nine files are taken" && return 1
	[[ $said == "pronk: -c: too many files (allowed: up to 8)" ]] || because "nine files: $said" || return
	{ cat "$conf"; echo 'strict = true;'; } >"$work/strict.conf"
	said=$(p_raw timeout 30 "$pronk" run -c "$work/strict.conf" -c "$conf_b" -- true 2>&1)
	rc=$?
	[ $rc = 125 ] && [[ $said == "pronk: $conf_b: "*"; not run, because option strict is on" ]] || because "strict ($rc): $said" || return
	said=$(PRONK_CONFIG="$conf:$conf_b" p_raw "$pronk" status 2>&1)
	[[ $said == *"address $addr_p/24"* ]] || [ "$mode" = inline ] || because "status of a list: $said"
}

[ "${BASH_SOURCE[0]}" = "$0" ] || return 0 # for services_death.sh

for kind in "${@:-afpacket}"; do
	link_up "$kind" 'linger_s = 1;'
	second_link
	scenario "$link: the first service gets ready" service_ready
	scenario "$link: the second service gets ready" b_start
	scenario "$link: the peers" peers_start
	[ "$link" = kernel ] || memories_note
	scenario "$link: connections to both networks" cases connections_to_both beyond_both_networks large_data_on_both_at_once
	scenario "$link: a wildcard listener, accept" cases wildcard_blocking_accept wildcard_nonblocking_accept wildcard_threads_in_accept \
		wildcard_close_while_a_thread_accepts
	scenario "$link: a wildcard listener, poll and select" cases wildcard_poll wildcard_select
	scenario "$link: a wildcard listener, epoll" cases wildcard_epoll wildcard_epoll_edge wildcard_epoll_oneshot wildcard_edge_from_each
	scenario "$link: a listener on one address" cases wildcard_shown_at_both listener_on_one_address port_zero_is_one_port
	scenario "$link: options" cases options_hold_on_both
	scenario "$link: datagrams, wildcard" cases udp_wildcard_recvmsg udp_wildcard_poll_select udp_wildcard_epoll
	scenario "$link: datagrams, connected and unbound" cases udp_connected_to_each udp_unbound_sends_to_each udp_on_one_address
	scenario "$link: one set of everything" cases one_set_of_everything
	scenario "$link: idle" cases idle_costs_nothing
	scenario "$link: fork" cases child_serves_both workers_share_a_listener child_opens_its_own
	scenario "$link: exec, descriptors passed on" cases listener_and_connections_survive_exec connections_travel_to_another_process \
		listener_travels_with_all_its_places
	scenario "$link: bursts, threads and workers with sets of their own" cases burst_to_threads_with_sets_of_their_own burst_to_workers
	scenario "$link: redis-server" redis_everywhere
	if [ "$link" != kernel ]; then
		scenario "$link: the files in the other order" other_order
		scenario "$link: all memory comes back" memories_back
		scenario "$link: one service dies" one_dies
		scenario "$link: one service is not there" not_running
		scenario "$link: networks that overlap" wider_network
		scenario "$link: one service cannot be started" not_startable
		scenario "$link: one service is named twice" named_twice
		[ "$mode" != inline ] || scenario "$link: two files with mode = inline" two_inline
		scenario "$link: pronk check and pronk run of several files" check_says
		dedicated_only "the stack is in the program" "$link: LD_PRELOAD alone starts both" autostarted
	fi
	b_stop
	link_down
done
finish
