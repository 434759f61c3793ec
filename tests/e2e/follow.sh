#!/usr/bin/env bash
# follow.sh [afxdp|afpacket...]: the port follows the kernel's interface while programs talk:
#   - the address changes: new connections go to the new one, nobody answers at the old one any more; an old connection rests, and goes
#     on when its address is back (afxdp; with afpacket Pronk's address is not the kernel's)
#   - the interface has no address for a while: nothing is Pronk's
#   - a default route comes and goes: far peers are reached through Pronk, or are the kernel's affair
#   - the MTU is lowered: open and new connections keep to it
#   - the interface goes down and up again
#   - a permanent neighbour is taken over, and given up
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

new=
far=203.0.113.9

# what the port was told last; the program with the stack says it itself in mode inline
told() { grep -h 'has changed' "$work/service.log" "$work/server.log" 2>/dev/null | tail -1 | sed 's/; before:.*//'; }
is_told() { [[ $(told) == *"$1"* ]]; }
# follows PATTERN WHAT...: true when the port has noticed
follows() { wait_until 10 is_told "$1" || because "$2: the port was told last: $(told)"; }

k_asks() { k_raw timeout 20 "$python" "$e2e_dir/follow.py" once "$@"; }

server_start() {
	spawn server p "$python" "$e2e_dir/follow.py" serve 7300
	wait_until 10 grep -q listening "$work/server.log" || because "no server: $(tail -1 "$work/server.log")" || return
	server_pid=$spawned
	wait_until 10 k_asks "$addr_p" 7300 || because "nobody answers at $addr_p"
}

talk_start() {
	: >"$work/talk"
	spawn talk k "$python" "$e2e_dir/follow.py" talk "$addr_p" 7300 "$work/talk"
	talk_pid=$spawned
	wait_until 10 grep -q '^ok 1$' "$work/talk.log" || because "no connection: $(tail -1 "$work/talk.log")"
}
# talk_goes BYTES: over the connection that was opened at the start
talk_goes() {
	echo "$1" >>"$work/talk"
	wait_until 30 grep -q "^ok $1\$" "$work/talk.log" || because "the old connection: $(tail -1 "$work/talk.log")"
}

address_moves() {
	# the other order would lose both: the new one would be the old one's secondary
	ip -n "$ns_p" addr del "$addr_p/24" dev pkp && ip -n "$ns_p" addr add "$new/24" dev pkp
	follows "address $new/24" "another address" || return
	k_asks "$new" 7300 100000 >/dev/null || because "nobody answers at the new address" || return
	k_raw timeout 1 "$python" "$e2e_dir/follow.py" once "$addr_p" 7300 >/dev/null 2>&1 &&
		because "somebody answers at the old address" && return 1
	process_gone "$talk_pid" && because "the old connection has ended" && return 1
	ip -n "$ns_p" addr del "$new/24" dev pkp && ip -n "$ns_p" addr add "$addr_p/24" dev pkp
	follows "address $addr_p/24" "the first address again" || return
	talk_goes 3001
}

no_address() {
	ip -n "$ns_p" addr del "$addr_p/24" dev pkp
	follows "no address" "no address" || return
	k_raw timeout 1 "$python" "$e2e_dir/follow.py" once "$addr_p" 7300 >/dev/null 2>&1 &&
		because "somebody answers" && return 1
	p timeout 10 "$python" "$e2e_dir/follow.py" once "$addr_k" 7301 >"$work/once.out" 2>&1
	grep -q 'unreachable' "$work/once.out" || because "a connect says: $(tail -1 "$work/once.out")" || return
	ip -n "$ns_p" addr add "$addr_p/24" dev pkp
	follows "address $addr_p/24" "the address again" || return
	talk_goes 3002
}

# a socket to the far address; whose it was tells pronkctl's counter
connected() { stat tcp_connected; }
p_asks() { p timeout 20 "$python" "$e2e_dir/follow.py" once "$@" >"$work/once.out" 2>&1; }
gateway_comes_and_goes() {
	local before
	ip -n "$ns_k" addr add "$far/32" dev lo
	spawn far k "$python" "$e2e_dir/follow.py" serve 7302
	wait_until 10 grep -q listening "$work/far.log" || because "no server" || return
	p_asks "$far" 7302 && because "there is a way without a route" && return 1
	ip -n "$ns_p" route add default via "$addr_k" dev pkp
	follows "gateway $addr_k," "a gateway" || return
	before=$(connected)
	p_asks "$far" 7302 50000 || because "through the gateway: $(tail -1 "$work/once.out")" || return
	stat_is tcp_connected $((before + 1)) || because "the kernel has served it" || return
	ip -n "$ns_p" route del default
	follows "no gateway" "no gateway" || return
	p_asks "$far" 7302 && because "there is a way without a route" && return 1
	grep -q 'unreachable' "$work/once.out" || because "a connect says: $(tail -1 "$work/once.out")"
}

# the kernel's end of a veth drops what is longer than its own MTU
mtu_shrinks() {
	ip -n "$ns_p" link set pkp mtu 900 && ip -n "$ns_k" link set pkk mtu 900
	follows "MTU 900," "a smaller MTU" || return
	talk_goes 200003 || return
	k_asks "$addr_p" 7300 200000 >/dev/null || because "a new connection" || return
	ip -n "$ns_k" link set pkk mtu 1500 && ip -n "$ns_p" link set pkp mtu 1500
	follows "MTU 1500," "the first MTU again" || return
	k_asks "$addr_p" 7300 200000 >/dev/null || because "a new connection at the end"
}

stack_pid() { if [ "$mode" = inline ]; then echo "$server_pid"; else echo "$service_pid"; fi; }
down_and_up() {
	local ticks
	ip -n "$ns_p" link set pkp down
	follows "link down" "link down" || return
	# what sleeps goes on sleeping
	ticks=$(process_ticks "$(stack_pid)")
	wait_until 1 false
	ticks=$(($(process_ticks "$(stack_pid)") - ticks))
	remark "$ticks ticks in a second of it"
	[ "$ticks" -lt 30 ] || because "$ticks ticks of CPU time in a second without a link" || return
	ip -n "$ns_p" link set pkp up
	follows "link up" "link up" || return
	talk_goes 3004 || return
	k_asks "$addr_p" 7300 1000 >/dev/null || because "a new connection"
}

# k does not answer ARP: only who knows it reaches it
permanent_neighbour() {
	local mac silent=${addr_k%.*}.99
	mac=$(ip -n "$ns_k" link show pkk | awk '/link\/ether/ { print $2 }')
	ip -n "$ns_k" addr add "$silent/24" dev pkk
	ip netns exec "$ns_k" sysctl -qw net.ipv4.conf.pkk.arp_ignore=8 net.ipv4.conf.all.arp_ignore=8
	p_asks "$silent" 7302 && because "somebody has answered ARP" && return 1
	ip -n "$ns_p" neigh replace "$silent" lladdr "$mac" dev pkp nud permanent
	follows "1 permanent neighbour" "a permanent neighbour" || return
	p_asks "$silent" 7302 5000 || because "a permanent neighbour: $(tail -1 "$work/once.out")" || return
	ip -n "$ns_p" neigh del "$silent" dev pkp
	follows "0 permanent neighbours" "none any more" || return
	ip netns exec "$ns_k" sysctl -qw net.ipv4.conf.pkk.arp_ignore=0 net.ipv4.conf.all.arp_ignore=0
}

service_says_it_once() {
	local lines
	lines=$(grep -hc 'has changed' "$work/service.log" "$work/server.log" 2>/dev/null | awk '{ n += $1 } END { print n }')
	[ "$lines" -ge 6 ] && [ "$lines" -le 40 ] || because "$lines lines about changes"
}

kinds() {
	for kind; do
		link_up "$kind"
		new=${addr_p%.*}.22
		case $kind in
		afxdp) conf_write "$conf" 'device = "afxdp:pkp";' 'address = "auto";' 'gateway = "auto";' 'name = "p";' ;;
		afpacket)
			# the kernel has an address of its own there, so that a default route can lead there
			ip -n "$ns_p" addr add "${addr_p%.*}.3/24" dev pkp
			conf_write "$conf" 'device = "afpacket:pkp";' "address = \"$addr_p/24\";" 'gateway = "auto";' 'name = "p";'
			;;
		esac
		scenario "$kind: the service gets ready" service_ready
		scenario "$kind: a server" server_start
		scenario "$kind: a connection that stays" talk_start
		if [ "$kind" = afxdp ]; then
			scenario "$kind: the address changes and comes back" address_moves
			scenario "$kind: no address for a while" no_address
		fi
		scenario "$kind: a gateway comes and goes" gateway_comes_and_goes
		scenario "$kind: a smaller MTU" mtu_shrinks
		scenario "$kind: down and up" down_and_up
		scenario "$kind: a permanent neighbour" permanent_neighbour
		scenario "$kind: a line for each change" service_says_it_once
		link_down
	done
}

[ $# -gt 0 ] || set -- afxdp afpacket
kinds "$@"
finish
