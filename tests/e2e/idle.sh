#!/usr/bin/env bash
# idle.sh [KIND...] - what does nothing must cost nothing:
#   - 10,000 idle connections beside a load: no error; requests/s with and without them are reported
#   - no traffic: services plus application use less than 2 % of a core over 5 s
#   - the first request after 3 s without any is answered; its time is reported
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# median_load: requests/s of the median of five loads, in $rps
median_load() {
	local i all=
	for i in 1 2 3 4 5; do
		redis_load p 7001 -c 50 -n "$n" -t get || return
		all="$all $rps"
	done
	# shellcheck disable=SC2086
	rps=$(printf '%s\n' $all | sort -g | sed -n 3p)
}

idle_connections() {
	local count=${quick:+1000} source='' before i
	count=${count:-10000}
	files_raise
	for i in 11 12 13 14; do
		source=$source${source:+,}${addr_k%.*}.$i
		ip -n "$ns_k" addr add "${addr_k%.*}.$i/24" dev "$k_dev"
	done
	median_load || return
	before=$rps
	mkfifo "$work/gate"
	exec 9<>"$work/gate"
	spawn hold k "$python" "$e2e_dir/tcp.py" hold "$addr_p" 7001 "$count" "$source" <"$work/gate" 9>&-
	wait_until 90 eval "grep -q open '$work/hold.log' || process_gone $spawned"
	grep -q open "$work/hold.log" || because "$(tail -1 "$work/hold.log")" || return
	[ "$(stat tcp_established)" -ge "$count" ] || because "only $(stat tcp_established) of $count connections" || return
	median_load || return
	remark "$(awk -v a="$rps" -v b="$before" 'BEGIN { printf "%.0f requests/s with them, %.0f without: %.2f", a, b, a / b }')"
	exec 9>&-
	wait_until 60 process_gone "$spawned" || because "the client does not end" || return
	wait "$spawned" || because "$(tail -1 "$work/hold.log")"
}

# all services of the link, and the application
ticks_of_all() {
	local n=0 pid
	for pid in $service_pid "$redis_pid" $peer_pid; do n=$((n + $(process_ticks "$pid"))); done
	echo "$n"
}

# a memif's receive interrupt is something to sleep on
no_naps() {
	local a b
	sleep 0.3 # until the peer is there the stack looks often
	a=$(stat naps)
	sleep 1
	b=$(stat naps)
	[ "$a" = "$b" ] || because "$((b - a)) naps in a second"
}

no_traffic() {
	local a b
	sleep 1 # what the scenario before left behind
	a=$(ticks_of_all)
	sleep 5
	b=$(ticks_of_all)
	a=$(((b - a) * 1000 / $(getconf CLK_TCK)))
	remark "$a ms of CPU in 5000 ms"
	[ "$a" -lt 100 ] || because "$a ms of CPU in 5000 ms, more than 2 %"
}

first_request() {
	k timeout 60 "$python" "$e2e_dir/tcp.py" first "$addr_p" 7001 3 "$first_count" >"$work/first.out" 2>"$work/first.log" ||
		because "$(tail -1 "$work/first.log")" || return
	remark "$(sort -n "$work/first.out" | tr '\n' ' ')us"
}

n=${quick:+20000}
n=${n:-50000}
[ $# -gt 0 ] || set -- tap afpacket afxdp memif
for kind; do
	up "$kind"
	first_count=2
	[ "$link" != tap ] || first_count=${quick:-5}
	k_dev=pkk
	[ "$link" != tap ] || k_dev=pkp
	memory_note
	scenario "$link: redis-server starts" redis_start p 7001 --maxclients 12000
	scenario "$link: no traffic, little CPU" no_traffic
	[ "$link" != memif ] || scenario "$link: the idle stack sleeps" no_naps
	scenario "$link: the first request after idling" first_request
	if [ "$link" = tap ]; then
		scenario "$link: idle connections beside a load" idle_connections
		scenario "$link: no traffic after it, little CPU" no_traffic
	fi
	apps_end
	scenario "$link: all memory comes back" memory_back
	link_down
done
finish
