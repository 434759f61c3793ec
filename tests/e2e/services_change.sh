#!/usr/bin/env bash
# services_change.sh [afpacket|kernel] - datagram sockets of a program with two services, that change while they are used:
#   - a thread sleeps (recv, poll, select, epoll) for a socket that gets an endpoint at the other service, or another peer, meanwhile
#   - a port that another program has at one of the services; multicast groups and IP_MULTICAST_IF at each port; errors
#   - the peer's service dies: who has its peer there hears of it, the rest goes on at the other
#   - two threads in accept and a connection at each service at once; sockets that come and go under two threads in epoll_wait
# With --mode inline the first service is a stack in the program. The cases are in services_change.py; over "kernel" they run on the kernel's
# sockets alone.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
lossy=

addr_kb=198.18.56.1 addr_b=198.18.56.2
conf_b=$work/b.conf
b_pid=
program=$e2e_dir/services_change.py

second_link() {
	ns_m=${pke}m
	ip netns add "$ns_m"
	ip link add pkp2 netns "$ns_p" type veth peer name pkk2 netns "$ns_m"
	ip -n "$ns_m" link set lo up
	ip -n "$ns_m" addr add "$addr_kb/24" dev pkk2
	ip -n "$ns_m" link set pkk2 up
	ip -n "$ns_p" link set pkp2 up
	# or the stack in a program would say that they leave checksums out
	quiet_in "$ns_k" ethtool -K pkk tx off
	quiet_in "$ns_m" ethtool -K pkk2 tx off
	if [ "$link" = kernel ]; then
		ip -n "$ns_p" addr add "$addr_b/24" dev pkp2
		return
	fi
	conf_write "$conf_b" 'device = "afpacket:pkp2";' "address = \"$addr_b/24\";" 'gateway = "none";' 'name = "b";' 'linger_s = 1;' \
		'autostart = false;'
}

b_start() {
	[ "$link" != kernel ] || return 0
	service_spawn service-b "$conf_b" && b_pid=$spawned || return
	wait_until 5 ip netns exec "$ns_m" timeout 2 ping -c 1 -W 1 "$addr_b" || because "no answer to ping at $addr_b"
}

# peer_start NAME NAMESPACE
peer_start() {
	: >"$work/peer-$1.log"
	rm -f "$work/peer.$1"
	ip netns exec "$2" "$python" "$program" peer "$work/peer.$1" >"$work/peer-$1.log" 2>&1 &
	pids+=($!)
	apps+=($!)
	wait_until 10 grep -q ready "$work/peer-$1.log" || because "no peer: $(tail -1 "$work/peer-$1.log")"
}
peers_start() {
	local only_b=$conf_b
	[ "$link" != kernel ] || only_b=
	peer_start a "$ns_k" && peer_start b "$ns_m" || return
	cat >"$work/world.json" <<-END
		{"places": {"a": ["$addr_p", "$addr_k", "$work/peer.a"], "b": ["$addr_b", "$addr_kb", "$work/peer.b"]}, "ctl": [], "only_b": "$only_b", "b_pid": ${b_pid:-0}}
	END
}

# cases NAME...: in one program, which says nothing by the way
cases() {
	local under=() rc
	[ "$link" = kernel ] || under=("$pronk" run -c "$conf" -c "$conf_b" --)
	timeout 120 ip netns exec "$ns_p" "${under[@]}" "$python" "$program" case "$work/world.json" "$@" >"$work/cases.out" 2>"$work/cases.log"
	rc=$?
	[ $rc = 0 ] || because "exit status $rc: $(grep -v '^pronk' "$work/cases.log" | head -1 | cut -c1-300)" || return
	[ "$(grep -c '^passed' "$work/cases.out")" = $# ] || because "$(grep -c '^passed' "$work/cases.out") of $# cases passed" || return
	[ "$1" != the_service_of_the_peer_dies ] || return 0
	! grep -q '^pronk' "$work/cases.log" || because "it says: $(grep -m1 '^pronk' "$work/cases.log")"
}

for kind in "${@:-afpacket}"; do
	link_up "$kind" 'linger_s = 1;'
	second_link
	scenario "$link: the first service gets ready" service_ready
	scenario "$link: the second service gets ready" b_start
	scenario "$link: the peers" peers_start
	scenario "$link: a thread waits while its socket changes" cases a_thread_waits_while_it_grows a_thread_waits_while_it_connects
	scenario "$link: a port that is taken at one service" cases port_taken_at_one_service chosen_port_taken_at_the_other
	scenario "$link: groups" cases groups_at_each_port group_is_the_address multicast_leaves_by_the_named_port
	scenario "$link: an error outlives a change of the peer" cases error_outlives_a_change_of_peer
	scenario "$link: a connection at each service at once" cases each_of_two_acceptors_gets_one
	scenario "$link: sockets come and go under waits" cases changes_under_waits
	if [ "$link" != kernel ]; then
		scenario "$link: the service of the peer dies" cases the_service_of_the_peer_dies
		kill -KILL "$b_pid" 2>/dev/null # if that was not come to
		wait "$b_pid" 2>/dev/null
		b_pid=
	fi
	link_down
done
finish
