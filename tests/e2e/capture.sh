#!/usr/bin/env bash
# capture.sh [KIND...] - pronk-dump, over af_packet (two stacks), TAP and memif unless told:
#   - Redis and datagrams (fragments, too) while tcpdump listens at the other end: the same packets in both files, byte for byte, in
#     each direction; on memif, where frames are long and there is no tcpdump, pronk-dump listens at both ends
#   - filter, direction, stack, snap length and count choose; a filter is asked of tcpdump for the same packets
#   - files by size, in a round, and by time; standard output; printed by tcpdump
#   - a pronk-dump that is stopped: the load goes on, what it missed is counted, on its screen and in the file
#   - eight at a time, a ninth is told; kill -9 ends them all; another user may not; the service ends first
#   - tshark finds nothing to complain about
#   - dpdk_capture: DPDK's own dpdk-dumpcap captures; a killed service's files are gone after the next one's start
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# a copy that other users may read, too
cp "$PKE_BUILD/tools/pronk-dump" "$work/pronk-dump" && chmod 755 "$work/pronk-dump" || die "no pronk-dump in $PKE_BUILD"
dump=$work/pronk-dump
look=$e2e_dir/capture.py

# capture_start NAME ARGUMENT...: pronk-dump in the background, output in NAME.out, messages in NAME.log; its id is in $capture_pid
capture_start() {
	local name=$1
	shift
	: >"$work/$name.log"
	"$dump" -i "$work/run/p.sock" "$@" >"$work/$name.out" 2>"$work/$name.log" &
	capture_pid=$!
	pids+=("$capture_pid")
	wait_until 20 eval "grep -q 'capturing on' '$work/$name.log' || process_gone $capture_pid"
	grep -q 'capturing on' "$work/$name.log" || because "pronk-dump $*: $(tail -1 "$work/$name.log")"
}

# capture_end PID NAME: an orderly end, by ^C
capture_end() {
	local rc
	kill -INT "$1"
	wait_until 20 process_gone "$1" || because "pronk-dump does not end" || return
	wait "$1"
	rc=$?
	[ $rc = 0 ] || because "pronk-dump's exit status is $rc: $(tail -1 "$work/$2.log")"
}

# facts FILE: sets $packets, $received... of a whole file
facts() {
	"$python" "$look" check "$1" >"$work/facts" 2>&1 || because "$(tail -1 "$work/facts")" || return
	eval "$(cat "$work/facts")"
}

# mark TEXT: an echo and its answer that hold it
mark() { k_raw ping -c 1 -W 5 -s 32 -p "$(printf %s "$1" | od -An -tx1 | tr -d ' \n')" "$addr_p" >/dev/null || because "no answer to ping"; }
marked() { wait_until 20 "$python" "$look" marks "$1" "$2" "${3:-2}" || because "$1 does not have the mark $2"; }

traffic() {
	redis_load p 7001 -n 2000 -c 5 -d 100 -t set,get || return
	redis_load p 7001 -n 20 -c 2 -d 100000 -t set,get || return
	[ "$link" = memif ] || k timeout 60 "$python" "$e2e_dir/udp.py" ask "$addr_p" 7002 20 9000 >"$work/ask.log" 2>&1 ||
		because "datagrams: $(tail -1 "$work/ask.log")"
}

# the kernel's connections to us that may still send something
k_connections() {
	k_raw ss -Htan state established state syn-sent state fin-wait-1 state fin-wait-2 state close-wait state last-ack state closing \
		'dport = :7001'
}
k_quiet() { [ -z "$(k_connections)" ]; }
like_tcpdump() {
	local interface=pkk peer ours
	[ "$link" != tap ] || interface=pkp
	ip netns exec "$ns_k" tcpdump -i $interface -Z root -U -B 16384 -w "$work/peer.pcap" 2>"$work/tcpdump.log" &
	peer=$!
	pids+=("$peer")
	wait_until 10 grep -q 'listening on' "$work/tcpdump.log" || because "tcpdump: $(tail -1 "$work/tcpdump.log")" || return
	capture_start ours -w "$work/ours.pcapng" -B 65536 || return
	ours=$capture_pid
	mark FIRSTMARK || return
	traffic || return
	wait_until 10 k_quiet || because "connections do not end: $(k_connections)" || return
	mark LASTMARK || return
	marked "$work/ours.pcapng" LASTMARK || return
	marked "$work/peer.pcap" LASTMARK || return
	capture_end "$ours" ours || return
	process_end "$peer"
	grep -q '^0 packets dropped by the capture' "$work/ours.log" || because "$(tail -1 "$work/ours.log")" || return
	grep -q '^0 packets dropped by kernel' "$work/tcpdump.log" || because "tcpdump: $(tail -1 "$work/tcpdump.log")" || return
	facts "$work/ours.pcapng" || return
	[ "$packets" = "$received" ] || because "$received packets received, $packets in the file" || return
	[ $(($(date +%s) - first)) -lt 300 ] && [ $(($(date +%s) - first)) -ge 0 ] || because "the first packet is of $(date -d "@$first")" || return
	[ "$link$mode" != afpacketdedicated ] || [ "$queues" = 0,1 ] || because "the stacks that captured: $queues" || return
	"$python" "$look" same "$work/ours.pcapng" "$work/peer.pcap" FIRSTMARK LASTMARK >"$work/same" 2>&1 || because "$(tail -3 "$work/same")" || return
	remark "$(cat "$work/same")"
}

both_ends() {
	local ours theirs
	capture_start ours -w "$work/ours.pcapng" -B 65536 || return
	ours=$capture_pid
	"$dump" --socket "$work/run/k.sock" -w "$work/theirs.pcapng" -B 65536 >"$work/theirs.out" 2>"$work/theirs.log" &
	theirs=$!
	pids+=("$theirs")
	wait_until 20 grep -q 'capturing on' "$work/theirs.log" || because "at the peer: $(tail -1 "$work/theirs.log")" || return
	redis_cli p 7001 echo FIRSTMARK >/dev/null || because "redis-cli" || return
	traffic || return
	redis_cli p 7001 echo LASTMARK >/dev/null || because "redis-cli" || return
	marked "$work/ours.pcapng" LASTMARK || return
	marked "$work/theirs.pcapng" LASTMARK || return
	capture_end "$theirs" theirs && capture_end "$ours" ours || return
	facts "$work/ours.pcapng" || return
	[ "$dropped" = 0 ] || because "$dropped packets dropped" || return
	[ "$longest" -gt 20000 ] && [ "$kept" = "$longest" ] || because "the longest frame has $longest bytes, $kept of them kept" || return
	"$python" "$look" same "$work/ours.pcapng" "$work/theirs.pcapng" FIRSTMARK LASTMARK >"$work/same" 2>&1 || because "$(tail -3 "$work/same")" || return
	remark "$(cat "$work/same")"
}

# chosen COUNT ARGUMENT...: a capture with these, and tcpdump's choice from the capture of everything; COUNT is how many
choose() {
	local all some filter='tcp and src port 7001 and greater 100' expected
	capture_start all -w "$work/all.pcapng" -B 16384 || return
	all=$capture_pid
	capture_start some -w "$work/some.pcapng" -s 60 -Q out "$filter" || return
	some=$capture_pid
	capture_start none -w "$work/none.pcapng" 'tcp port 1' || return
	local none=$capture_pid
	capture_start counted -w "$work/counted.pcapng" -c 7 -Q in tcp || return
	local counted=$capture_pid
	redis_load p 7001 -n 500 -c 2 -d 200 -t set,get || return
	wait_until 10 process_gone "$counted" || because "-c 7 does not end" || return
	mark LASTMARK || return
	marked "$work/all.pcapng" LASTMARK || return
	capture_end "$some" some && capture_end "$all" all && capture_end "$none" none || return
	expected=$(tcpdump -r "$work/all.pcapng" "$filter" 2>/dev/null | wc -l)
	facts "$work/some.pcapng" || return
	[ "$packets" = "$expected" ] && [ "$expected" -gt 100 ] || because "$packets packets match, by tcpdump $expected" || return
	[ "$in" = 0 ] && [ "$kept" = 60 ] && [ "$longest" -gt 200 ] || because "in=$in kept=$kept longest=$longest" || return
	facts "$work/counted.pcapng" || return
	[ "$packets" = 7 ] && [ "$out" = 0 ] || because "-c 7 -Q in: $packets packets, $out of them sent" || return
	facts "$work/none.pcapng" || return
	[ "$packets $received" = "0 0" ] || because "'tcp port 1': $packets packets"
}

# by the stack that captures: together they have what both have
by_stack() {
	local i one=() sum=0
	for i in 0 1; do
		capture_start "stack$i" -w "$work/stack$i.pcapng" -q $i tcp port 7001 || return
		one+=("$capture_pid")
	done
	capture_start both -w "$work/both.pcapng" -q 0-1 tcp port 7001 || return
	one+=("$capture_pid")
	redis_load p 7001 -n 2000 -c 20 -t get || return
	redis_cli p 7001 echo LASTMARK >/dev/null
	marked "$work/both.pcapng" LASTMARK || return
	# the connection's end
	wait_until 10 redis_alone || because "connections stay" || return
	for i in "${one[@]}"; do
		capture_end "$i" both || return
	done
	for i in 0 1; do
		facts "$work/stack$i.pcapng" || return
		[ "$queues" = $i ] || because "-q $i captured at $queues" || return
		sum=$((sum + packets))
	done
	facts "$work/both.pcapng" || return
	[ "$sum" -gt 1000 ] && [ "$queues" = 0,1 ] || because "$sum packets, stacks $queues" || return
	"$dump" -i "$work/run/p.sock" -w "$work/x" -q 2 2>"$work/refused" && because "-q 2 is accepted" && return 1
	grep -q 'there is no stack 2 (allowed: 0 to 1)' "$work/refused" || because "-q 2: $(cat "$work/refused")"
}
redis_alone() { [ "$(redis_cli p 7001 client list | wc -l)" = 1 ]; }

files() {
	local pid i
	mkdir -p "$work/files"
	capture_start round -w "$work/files/round" -C 200k -W 3 -B 65536 tcp || return
	pid=$capture_pid
	redis_load p 7001 -n 2000 -c 5 -d 500 -t set,get || return
	capture_end "$pid" round || return
	[ "$(cd "$work/files" && echo *)" = "round0 round1 round2" ] || because "files: $(cd "$work/files" && echo *)" || return
	for i in 0 1 2; do
		facts "$work/files/round$i" || return
		[ "$(stat_size "$work/files/round$i")" -le $((200 * 1024 + 70000)) ] || because "round$i has $(stat_size "$work/files/round$i") bytes" || return
	done
	[ "$(stat_size "$work/files/round0")" -gt $((200 * 1024)) ] || [ "$(stat_size "$work/files/round1")" -gt $((200 * 1024)) ] || because "no file is full"
	rm -f "$work"/files/*

	# by time: two files of a second each, then it ends by itself
	capture_start time -w "$work/files/time-%s" -G 1 -W 2 || return
	pid=$capture_pid
	wait_until 20 eval "redis_cli p 7001 ping; process_gone $pid" || because "-G 1 -W 2 does not end" || return
	wait "$pid" || because "exit status $?" || return
	[ "$(ls "$work/files" | wc -l)" = 2 ] || because "files: $(cd "$work/files" && echo *)" || return
	for i in "$work"/files/*; do
		facts "$i" || return
	done
	rm -f "$work"/files/*
}
stat_size() { wc -c <"$1"; }

pipes() {
	local pid text
	"$dump" --config "$conf" -c 20 -w - tcp port 7001 2>"$work/pipe.log" | tcpdump -nr - >"$work/pipe.txt" 2>/dev/null &
	pid=$!
	pids+=("$pid")
	wait_until 20 grep -q 'capturing on' "$work/pipe.log" || because "$(tail -1 "$work/pipe.log")" || return
	wait_until 20 eval "redis_cli p 7001 ping; process_gone $pid" || because "it does not end" || return
	[ "$(wc -l <"$work/pipe.txt")" = 20 ] || because "$(wc -l <"$work/pipe.txt") lines, not 20" || return
	capture_start text -n -c 20 tcp port 7001 || return
	pid=$capture_pid
	wait_until 20 eval "redis_cli p 7001 ping; process_gone $pid" || because "it does not end" || return
	[ "$(grep -c "IP .*$addr_p.7001" "$work/text.out")" = 20 ] || because "it prints: $(head -3 "$work/text.out")" || return
	text=$(PATH=/nowhere "$dump" -i "$work/run/p.sock" 2>&1) && because "without tcpdump it prints" && return 1
	[[ $text == *"takes tcpdump, which is not installed"* ]] || because "without tcpdump: $text" || return
	# who reads goes away
	text=$("$dump" -i "$work/run/p.sock" -w /dev/full 2>&1) && because "a full disk is no error" && return 1
	[[ $text == *"No space left"* ]] || because "a full disk: $text"
}

is_stopped() { grep -q '^State:[[:space:]]*T' "/proc/$1/status"; }
slow_reader() {
	local pid said
	capture_start slow -w "$work/slow.pcapng" -B 256 tcp port 7001 || return
	pid=$capture_pid
	kill -STOP "$pid"
	wait_until 5 is_stopped "$pid"
	redis_load p 7001 -n 5000 -c 10 -d 200 -t set,get || because "the load does not go on" || return
	kill -CONT "$pid"
	capture_end "$pid" slow || return
	facts "$work/slow.pcapng" || return
	said=$(sed -n 's/^\([0-9]*\) packets dropped by the capture$/\1/p' "$work/slow.log")
	[ "$dropped" -gt 1000 ] && [ "$dropped" = "$said" ] || because "$dropped packets dropped, it says $said" || return
	[ "$packets" = $((received - dropped)) ] || because "$packets packets, $received received, $dropped dropped" || return
	remark "$packets captured, $dropped dropped"
}

killed() {
	local i ids=() said
	for i in 1 2 3 4 5 6 7 8; do
		"$dump" -i "$work/run/p.sock" -w "$work/many$i.pcapng" 2>"$work/many$i.log" &
		ids+=($!)
		pids+=($!)
	done
	for i in 1 2 3 4 5 6 7 8; do
		wait_until 30 grep -q 'capturing on' "$work/many$i.log" || because "the capture $i: $(tail -1 "$work/many$i.log")" || return
	done
	said=$("$dump" -i "$work/run/p.sock" -w "$work/x" 2>&1) && because "a ninth captures" && return 1
	[[ $said == *"8 captures are under way already"* ]] || because "a ninth: $said" || return
	redis_load p 7001 -n 2000 -c 10 -t get || return
	for i in "${ids[@]}"; do
		app_kill "$i"
	done
	wait_until 10 eval "'$dump' -i '$work/run/p.sock' -c 1 -w '$work/x' icmp & x=\$!; \
		wait_until 5 eval \"mark AGAIN; process_gone \$x\"; wait \$x" || because "no new capture begins" || return
	redis_load p 7001 -n 2000 -c 10 -t get
}

stranger() {
	local said
	said=$(setpriv --reuid=65534 --regid=65534 --clear-groups "$dump" -i "$work/run/p.sock" -w /dev/null 2>&1) && because "nobody captures" && return 1
	[[ $said == *"only root and the service's user may capture packets"* ]] || because "it says: $said"
}

service_first() {
	local pid
	capture_start last -w "$work/last.pcapng" || return
	pid=$capture_pid
	mark SOMETHING || return
	marked "$work/last.pcapng" SOMETHING || return
	apps_end
	if [ "$mode" = inline ]; then engine_ends; else service_stop; fi || return
	wait_until 10 process_gone "$pid" || because "pronk-dump goes on" || return
	wait "$pid" || because "exit status $?: $(tail -1 "$work/last.log")" || return
	grep -q 'the service has ended' "$work/last.log" || because "it says: $(cat "$work/last.log")" || return
	facts "$work/last.pcapng"
}

by_tshark() {
	command -v tshark >/dev/null || { remark "no tshark here" && return; }
	timeout 60 tshark -n -r "$work/ours.pcapng" -z expert -Y 'frame.number <= 5' >"$work/tshark.txt" 2>"$work/tshark.err" || because "tshark: $(tail -1 "$work/tshark.err")" || return
	grep -v 'Running as user' "$work/tshark.err" | grep -q . && because "tshark: $(tail -1 "$work/tshark.err")" && return 1
	grep -q 'Malformed' "$work/tshark.txt" && because "tshark finds malformed packets" && return 1
	remark "$(capinfos -c "$work/ours.pcapng" | sed -n 's/^Number of packets: *//p') packets"
}

# --- DPDK's own tools ---

huge_files() { find "$work/huge" -name "${pke}map_*" | wc -l; }
dumpcap_packets() { tcpdump -nr "$work/dumpcap.pcapng" "tcp port 7001" 2>/dev/null | wc -l; }
by_dumpcap() {
	local pid
	command -v dpdk-dumpcap >/dev/null || { remark "no dpdk-dumpcap here" && return; }
	redis_start p 7001 || return
	ip netns exec "$ns_p" dpdk-dumpcap --file-prefix="$pke" -i 0 -w "$work/dumpcap.pcapng" >"$work/dumpcap.log" 2>&1 &
	pid=$!
	pids+=("$pid")
	wait_until 20 grep -qE 'Packets captured|Capturing on' "$work/dumpcap.log" || because "dpdk-dumpcap: $(tail -2 "$work/dumpcap.log")" || return
	redis_load p 7001 -n 2000 -c 5 -t get || return
	wait_until 10 eval '[ "$(dumpcap_packets)" -gt 1000 ]' || because "$(dumpcap_packets) packets in its file" || return
	kill -INT "$pid"
	wait_until 10 process_gone "$pid" || because "it does not end" || return
	redis_load p 7001 -n 2000 -c 5 -t get || return
	remark "$(dumpcap_packets) packets"
	apps_end
}

leftovers() {
	[ "$(huge_files)" -gt 0 ] && [ -e /run/dpdk/$pke/config ] || because "the service has no files: $(huge_files)" || return
	kill -KILL "$service_pid"
	wait "$service_pid" 2>/dev/null
	[ "$(huge_files)" -gt 0 ] || because "nothing is left: is this test right?" || return
	sed -i '/dpdk_capture/d' "$conf"
	service_start || return
	[ "$(huge_files)" = 0 ] && [ ! -e /run/dpdk/$pke/config ] || because "$(huge_files) files of the killed service are left" || return
	service_stop
	echo 'dpdk_capture = true;' >>"$conf"
	service_start || return
	service_stop
	[ "$(huge_files)" = 0 ] && [ ! -e "/run/dpdk/$pke" ] || because "$(huge_files) files are left after an orderly end"
}

dpdk_tools() {
	[ "$mode" = dedicated ] || return 0
	mkdir "$work/huge"
	if ! mount -t hugetlbfs none "$work/huge" 2>/dev/null; then
		echo "      no hugetlbfs can be mounted here: dpdk_capture is not tested"
		return
	fi
	trap 'cleanup; umount "$work/huge" 2>/dev/null; rmdir "$work/huge" "$work" 2>/dev/null' EXIT
	up tap 'dpdk_capture = true;' "eal_args = \"--file-prefix=$pke\";"
	scenario "tap: dpdk-dumpcap captures" by_dumpcap
	scenario "tap: what a killed service leaves goes with the next" leftovers
	link_down
	umount "$work/huge"
}

[ $# -gt 0 ] || set -- afpacket tap memif
for kind; do
	if [ "$kind" = afpacket ]; then
		up afpacket 'stacks = 2;'
		[ "$mode" != inline ] || sed -i '/^stacks/d' "$conf"
		# frames as they are on a wire: no checksums left to an offload, nothing that is cut later
		quiet_in "$ns_k" ethtool -K pkk tx off tso off gso off gro off
	else
		up "$kind"
	fi
	scenario "$kind: redis-server starts" redis_start p 7001
	if [ "$kind" = memif ]; then
		scenario "memif: both ends capture the same, long frames whole" both_ends
	else
		spawn echo p "$python" "$e2e_dir/udp.py" echo "$addr_p" 7002
		scenario "$kind: the same packets as tcpdump at the peer" like_tcpdump
	fi
	if [ "$kind" = "$1" ]; then
		scenario "$kind: tshark reads it" by_tshark
		scenario "$kind: filter, direction, snap length, count" choose
		[ "$kind$mode" != afpacketdedicated ] || scenario "$kind: by stack" by_stack
		scenario "$kind: files by size and by time" files
		scenario "$kind: standard output, and printed" pipes
		scenario "$kind: a pronk-dump that is stopped" slow_reader
		scenario "$kind: eight at a time, killed" killed
		scenario "$kind: not for others" stranger
		scenario "$kind: the service ends first" service_first
	fi
	link_down
done
dpdk_tools
finish
