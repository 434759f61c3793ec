#!/usr/bin/env bash
# udp.sh [KIND...] - datagrams, over TAP and af_packet unless told:
#   - an echo server under Pronk, a client under Pronk: small, fragmented, many under way, four threads on one socket
#   - a server at every address answers loopback (through the kernel) and the network (through Pronk) at once
#   - memcached -U: values set by TCP and read by UDP
#   - iperf3 -u both ways, sockperf ping-pong
#   - groups and broadcast both ways, each datagram once
#   - the kernel has addresses on Pronk's interface, too: a server at every address answers there as well, and a datagram for all,
#     or for an address that both have, is heard once
#   - the service dies: a server at every address goes on answering loopback
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

udp=$e2e_dir/udp.py

serve() { # SIDE ADDRESS PORT
	spawn "echo-$1" "$1" "$python" "$udp" echo "$2" "$3"
	server=$spawned
	wait_until 10 grep -q serving "$work/echo-$1.log" || because "no server: $(tail -1 "$work/echo-$1.log")"
}

# asked SIDE PROGRAM ARGUMENT...: a client that must end well
asked() {
	local side=$1
	shift
	"$side" timeout 90 "$python" "$udp" "$@" >"$work/ask.log" 2>&1 || because "$*: $(tail -1 "$work/ask.log")"
}

count_note() { noted=$(count "$1"); }
count_grew() {
	local grown=$(($(count "$1") - noted))
	[ "$grown" -ge "$2" ] || because "$1 grew by $grown, not by $2: Pronk had no part in it"
}

server_on_pronk() {
	serve p 0.0.0.0 6001 || return
	count_note udp_rx
	asked k ask "$addr_p" 6001 1000 1400 || return
	count_grew udp_rx 1000 || return
	asked k ask "$addr_p" 6001 100 20000 || return
	asked k flood "$addr_p" 6001 20000 || return
	app_end "$server"
}
client_on_pronk() {
	serve k "$addr_k" 6002 || return
	count_note udp_tx
	asked p ask "$addr_k" 6002 1000 1400 || return
	count_grew udp_tx 1000 || return
	asked p ask "$addr_k" 6002 100 20000 || return
	asked p flood "$addr_k" 6002 20000 || return
	app_end "$server"
}
four_threads() {
	spawn threads p "$python" "$udp" threads 0.0.0.0 6003
	local pid=$spawned
	wait_until 10 grep -q serving "$work/threads.log" || because "no server" || return
	asked k flood "$addr_p" 6003 5000 || return
	app_end "$pid"
}

both_sides() {
	serve p 0.0.0.0 6004 || return
	k timeout 60 "$python" "$udp" ask "$addr_p" 6004 500 >"$work/net.log" 2>&1 &
	local net=$!
	p_raw timeout 60 "$python" "$udp" ask 127.0.0.1 6004 500 >"$work/loop.log" 2>&1 ||
		because "through loopback: $(tail -1 "$work/loop.log")" || return
	wait "$net" || because "through the network: $(tail -1 "$work/net.log")" || return
	app_end "$server"
}

memcached_udp() {
	spawn memcached p memcached -u root -l "$addr_p" -p 11211 -U 11211 -t 4
	local pid=$spawned
	wait_until 10 k_port_open 11211 || because "memcached does not listen: $(tail -1 "$work/memcached.log")" || return
	asked k memcached "$addr_p" 11211 || return
	app_end "$pid"
}
k_port_open() { k timeout 2 "$python" -c 'import socket,sys; socket.create_connection((sys.argv[1],int(sys.argv[2])),1)' "$addr_p" "$1"; }

# buffers_full: datagrams so far that found the buffer of their socket full, on either side
buffers_full() {
	local ns n=0
	for ns in "$ns_p" $([ "$ns_k" = "$ns_p" ] || echo "$ns_k"); do
		n=$((n + $(ip netns exec "$ns" awk '/^Udp: [0-9]/ { print $6 }' /proc/net/snmp)))
	done
	echo $((n + $(count drop_udp_rcvbuf)))
}

# iperf_run SERVER_SIDE [OPTION...]: 20 Mbit/s of datagrams; a busy machine may lose a few, as it does with the kernel. Where the receiving
# program did not come to its turn, the link has lost nothing.
iperf_run() {
	local side=$1 addr=$addr_p other=k full
	shift
	full=$(buffers_full)
	[ "$side" = p ] || { addr=$addr_k other=p; }
	spawn iperf-server "$side" iperf3 --forceflush -s -1 -B "$addr"
	local pid=$spawned
	wait_until 10 grep -q listening "$work/iperf-server.log" || because "the server does not listen" || return
	"$other" timeout 30 iperf3 -u -b 20M -l 1400 -c "$addr" -t "${iperf_s:-3}" --json "$@" >"$work/iperf.json" 2>"$work/iperf.log" ||
		because "iperf3: exit status $?: $(grep -h '"error"' "$work/iperf.json"; tail -1 "$work/iperf.log")" || return
	wait_until 10 process_gone "$pid" || because "the server does not end" || return
	"$python" - "$work/iperf.json" $(($(buffers_full) - full)) >"$work/iperf.out" <<-'END' || because "$(tail -1 "$work/iperf.out")" || return
		import json, sys
		end = json.load(open(sys.argv[1]))["end"]["sum"]
		full, all = int(sys.argv[2]), end["packets"]
		lost = end["lost_packets"] - min(full, end["lost_packets"])
		print("%.0f Mbit/s, %d of %d lost%s" % (end["bits_per_second"] / 1e6, lost, all, ", %d not read in time" % full if full else ""))
		sys.exit(all < 1000 or lost > all / 20 or end["lost_packets"] > all / 2)
	END
	remark "$(cat "$work/iperf.out")"
}

sockperf_run() { # SERVER_SIDE
	local side=$1 addr=$addr_p other=k
	[ "$side" = p ] || { addr=$addr_k other=p; }
	spawn sockperf-server "$side" sockperf server -i "$addr" -p 6010
	local pid=$spawned
	wait_until 10 grep -qi 'listen\|waiting\|to terminate' "$work/sockperf-server.log" || because "no server" || return
	"$other" timeout 30 sockperf ping-pong -i "$addr" -p 6010 -m 64 -t 2 >"$work/sockperf.log" 2>&1 ||
		because "sockperf: $(tail -1 "$work/sockperf.log")" || return
	grep -q 'dropped messages = 0; # duplicated messages = 0; # out-of-order messages = 0' "$work/sockperf.log" ||
		because "$(grep dropped "$work/sockperf.log" || tail -1 "$work/sockperf.log")" || return
	app_end "$pid"
	remark "$(sed -nE 's/.*(avg-latency=[0-9.]+).*/\1 us/p' "$work/sockperf.log" | head -1)"
}

group_to() { # HEARING_SIDE
	local hear=$1 say=k if_h=$addr_p if_s=$addr_k
	[ "$hear" = p ] || { say=p if_h=$addr_k if_s=$addr_p; }
	spawn hear "$hear" "$python" "$udp" hear 239.9.9.9 6020 "$if_h" hello
	local pid=$spawned
	wait_until 10 grep -q joined "$work/hear.log" || because "not joined: $(tail -1 "$work/hear.log")" || return
	asked "$say" say 239.9.9.9 6020 "$if_s" hello || return
	wait_until 20 process_gone "$pid" || because "nobody heard it" || return
	grep -q "heard $if_s" "$work/hear.log" || because "$(tail -1 "$work/hear.log")"
}

broadcast_to() { # HEARING_SIDE ADDRESS [say]: with say a group's, not everybody's
	local hear=$1 say=k if_s=$addr_k
	[ "$hear" = p ] || { say=p if_s=$addr_p; }
	spawn listen "$hear" "$python" "$udp" listen 6021 hello
	local pid=$spawned
	wait_until 10 grep -q listening "$work/listen.log" || because "not listening: $(tail -1 "$work/listen.log")" || return
	asked "$say" "${3:-shout}" "$2" 6021 ${3:+"$if_s"} hello || return
	wait_until 20 process_gone "$pid" || because "nobody heard it" || return
	wait "$pid" || because "$(tail -1 "$work/listen.log")" || return
	grep -q "heard $if_s" "$work/listen.log" || because "$(tail -1 "$work/listen.log")"
}

# kernel_has ADDRESS FUNCTION [ARGUMENT...]: meanwhile the kernel has this address on the port's interface
kernel_has() {
	local address=$1 rc=0
	shift
	ip -n "$ns_p" addr add "$address/24" dev pkp || because "no address $address for the kernel" || return
	"$@" || rc=$?
	ip -n "$ns_p" addr del "$address/24" dev pkp
	return $rc
}
kernels_address() { # ADDRESS
	spawn echo-asked p "$python" "$udp" echo_asked 6022
	local pid=$spawned
	wait_until 10 grep -q serving "$work/echo-asked.log" || because "no server: $(tail -1 "$work/echo-asked.log")" || return
	asked k ask "$1" 6022 300 || return
	count_note udp_rx
	asked k ask "$addr_p" 6022 300 || return
	count_grew udp_rx 300 || return
	app_end "$pid"
}

service_dies() {
	serve p 0.0.0.0 6030 || return
	asked k ask "$addr_p" 6030 50 || return
	app_kill "$service_pid"
	service_pid=
	p_raw timeout 30 "$python" "$udp" ask 127.0.0.1 6030 100 >"$work/loop.log" 2>&1 ||
		because "through loopback: $(tail -1 "$work/loop.log")" || return
	app_end "$server"
}

[ $# -gt 0 ] || set -- tap afpacket
for kind; do
	up "$kind"
	memory_note
	scenario "$link: echo server under Pronk" server_on_pronk
	scenario "$link: echo client under Pronk" client_on_pronk
	scenario "$link: four threads on one socket" four_threads
	scenario "$link: loopback and network at once" both_sides
	scenario "$link: memcached over UDP" memcached_udp
	scenario "$link: iperf3 -u to Pronk" iperf_run p
	scenario "$link: iperf3 -u from Pronk" iperf_run k
	scenario "$link: iperf3 -u -R from Pronk" iperf_run p -R
	scenario "$link: sockperf server under Pronk" sockperf_run p
	scenario "$link: sockperf client under Pronk" sockperf_run k
	# on a TAP both sides are one host: what one end sends, the other has heard by itself
	if [ "$link" != tap ]; then
		scenario "$link: a group, heard by Pronk" group_to p
		scenario "$link: a group, heard from Pronk" group_to k
		scenario "$link: broadcast, heard by Pronk" broadcast_to p "${addr_p%.*}.255"
		scenario "$link: limited broadcast, heard from Pronk" broadcast_to k 255.255.255.255
	fi
	if [ "$link" = afpacket ]; then
		other=${addr_p%.*}.3
		scenario "$link: a server at the kernel's address and at Pronk's" kernel_has "$other" kernels_address "$other"
		scenario "$link: broadcast, heard once, the kernel has an address" kernel_has "$other" broadcast_to p "${addr_p%.*}.255"
		scenario "$link: a group, heard once, the kernel has an address" kernel_has "$other" broadcast_to p 224.0.0.1 say
		scenario "$link: one datagram, heard once, the kernel has Pronk's" kernel_has "$addr_p" broadcast_to p "$addr_p"
	fi
	apps_end
	scenario "$link: all memory comes back" memory_back
	host_begins
	scenario "$link: after the service's death loopback goes on" service_dies
	hosted=
	link_down
done
finish
