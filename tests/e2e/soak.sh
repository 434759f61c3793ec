#!/usr/bin/env bash
# soak.sh [KIND...] - mixed load without one error, reset or stall: small and large values, pipelines, one and many clients, new
# connections all the time. SOAK_S seconds over all kinds of port (30, at least one round each; 600 for a release).
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

mixed() {
	local end=$((SECONDS + $1)) round=0
	while [ $SECONDS -lt "$end" ]; do
		redis_load p 7001 -c 50 -n 50000 -t set,get,incr,lpush,rpop || return
		redis_load p 7001 -c 50 -P 16 -n 100000 -t set,get || return
		redis_load p 7001 -c 20 -d 100000 -n 1000 -t set,get || return
		redis_load p 7001 -c 1 -n 2000 -t ping || return
		redis_load p 7001 -c 50 -k 0 -n 3000 -t get || return
		redis_load p 7001 -c 500 -d 3 -n 20000 -t set,get || return
		round=$((round + 1))
	done
	remark "$round rounds"
}

[ $# -gt 0 ] || set -- tap afpacket afxdp memif
for kind; do
	up "$kind"
	memory_note
	scenario "$link: redis-server starts" redis_start p 7001
	scenario "$link: mixed load" mixed $((${SOAK_S:-30} / $#))
	app_end "$redis_pid"
	# connections that closed a moment ago stay in TIME_WAIT on the side that closed them: nothing of it is memory of ours
	scenario "$link: all memory comes back" memory_back 20
	link_down
done
finish
