#!/usr/bin/env bash
# loss.sh - a link that loses packets (af_packet over a bridge with nftables; one of 50 frames in each direction):
#   - a 10 MB value set and read back byte-exact
#   - a load without an error, and what was sent again
#   - clients under Pronk: the same against a kernel server
#   - an outage of 5 s in the middle of a load: no connection is given up (RFC 1122, 4.2.3.5: not before 100 s)
#   - all memory comes back
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# IPv4 only: a lost ARP answer would cost a second and show nothing
loss_on() {
	ip netns exec "$ns_m" nft -f - <<-END
		table netdev loss {
			chain mp { type filter hook ingress device "mp" priority 0; meta protocol ip numgen random mod $1 == 0 counter drop; }
			chain mk { type filter hook ingress device "mk" priority 0; meta protocol ip numgen random mod $1 == 0 counter drop; }
		}
	END
}
lost() { ip netns exec "$ns_m" nft list table netdev loss | awk '/counter packets/ { for (i = 1; i < NF; i++) if ($i == "packets") n += $(i + 1) } END { print n + 0 }'; }

# value SIDE: through a server on SIDE
value() {
	local size=$((10 << 20)) before
	before=$(lost)
	head -c $size /dev/urandom >"$work/big"
	limit_s=60 redis_cli "$1" 7001 -x set big <"$work/big" >"$work/reply" 2>&1
	grep -qx OK "$work/reply" || because "set: $(head -c 200 "$work/reply")" || return
	limit_s=60 redis_cli "$1" 7001 get big >"$work/back" || because "get failed" || return
	[ "$(head -c $size "$work/back" | sha256sum)" = "$(sha256sum <"$work/big")" ] || because "what came back differs" || return
	remark "$(($(lost) - before)) packets lost"
}

load() {
	redis_load "$@" || return
	remark "$(printf '%.0f requests/s, p50 %s ms, p99 %s ms' "$rps" "$p50" "$p99"); $(stat tcp_retransmits) sent again, $(stat tcp_timeouts) timers"
}

loss_off() { ip netns exec "$ns_m" nft delete table netdev loss; }

# answered SIDE: how many commands the server on SIDE has answered
answered() {
	if [ "$1" = p ]; then
		redis_cli p 7001 info stats
	else
		k_raw timeout 20 redis-cli -h "$addr_k" -p 7001 info stats
	fi | tr -d '\r' | sed -n 's/^total_commands_processed://p'
}

# goes_on SIDE PID: true when that load ends; false when the server on SIDE has answered nothing of it for 30 s. How long it takes is the machine's.
goes_on() {
	local done=0 now since=$SECONDS
	until wait_until 2 process_gone "$2"; do
		now=$(answered "$1")
		# more than what was asked here
		[ "${now:-0}" -le $((done + 50)) ] || { done=$now since=$SECONDS; }
		[ $((SECONDS - since)) -lt 30 ] || because "nothing is answered for 30 s, after $done commands" || return
	done
}

# outage SIDE: everything is lost for 5 s while a load runs against the server on SIDE
outage() {
	local from=k addr=$addr_p
	[ "$1" = p ] || { from=p addr=$addr_k; }
	spawn outage "$from" redis-benchmark -h "$addr" -p 7001 -c 20 -d 20000 -n 60000 -t set,get --csv
	wait_until 10 eval "[ \"\$(stat tcp_established)\" -ge 20 ]" || because "no load" || return
	sleep 0.3
	! process_gone "$spawned" || because "the load was over too soon" || return
	loss_on 1
	sleep 5
	loss_off
	goes_on "$1" "$spawned" || return
	wait "$spawned" || because "redis-benchmark: $(grep -aihE -m1 'error|reset|timed' "$work/outage.log")"
}

lossy=1
up afpacket
memory_note
scenario "loss: redis-server under Pronk starts" redis_start p 7001
scenario "loss: without loss, a load" load p 7001 -c 20 -n 10000 -t set,get
scenario "loss: an outage, server under Pronk" outage p
loss_on 50
scenario "loss: 10 MB to and from a server under Pronk" value p
scenario "loss: a load on a server under Pronk" load p 7001 -c 20 -n 10000 -t set,get
app_end "$redis_pid"
scenario "loss: a kernel redis-server starts" redis_start k 7001
loss_off
scenario "loss: an outage, client under Pronk" outage k
loss_on 50
scenario "loss: 10 MB to and from a kernel server" value k
scenario "loss: a load on a kernel server" load k 7001 -c 20 -n 10000 -t set,get
app_end "$redis_pid"
scenario "loss: all memory comes back" memory_back 30
link_down
finish
