#!/usr/bin/env bash
# client.sh [KIND...] - clients under Pronk. For every kind of port, against a redis-server on the other side (the kernel's; a
# Pronk server on another pronkd for memif):
#   - redis-cli: a command, a 4 MB value set and read back byte-exact
#   - redis-benchmark: -c 50, -c 1, -P 16, -d 100000, 200 clients
#   - a refused connection and one that nobody answers end as they do on the kernel
#   - all endpoints and memory come back
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

load() { redis_load k 7001 "$@" && remark "$(printf '%.0f requests/s, p50 %s ms, p99 %s ms' "$rps" "$p50" "$p99")"; }

value() {
	head -c $((4 << 20)) /dev/urandom >"$work/big"
	redis_cli k 7001 -x set big <"$work/big" | grep -qx OK || because "set failed" || return
	redis_cli k 7001 get big >"$work/back"
	[ "$(head -c $((4 << 20)) "$work/back" | sha256sum)" = "$(sha256sum <"$work/big")" ] || because "what came back differs"
}

refused() {
	local text
	text=$(redis_cli k 7999 ping 2>&1)
	[[ $text == *"Connection refused"* ]] || because "it says: $text"
}

# a host that does not exist: the neighbour's address is never learned
unanswered() {
	local start text
	start=$(now_us)
	text=$(p timeout 30 "$python" -c 'import socket,sys
try:
    socket.create_connection((sys.argv[1], 7001), 20)
except OSError as e:
    print(e)' "${addr_k%.*}.77")
	[[ $text == *"No route to host"* || $text == *"timed out"* ]] || because "it says: $text" || return
	remark "$((($(now_us) - start) / 1000)) ms: ${text##*: }"
}

n=${quick:+10000}
n=${n:-25000}
[ $# -gt 0 ] || set -- tap afpacket afxdp memif
for kind; do
	up "$kind"
	memory_note
	scenario "$link: the other side's redis-server starts" redis_start k 7001
	scenario "$link: redis-cli" eval "redis_cli k 7001 ping | grep -qx PONG"
	scenario "$link: a 4 MB value comes back byte-exact" value
	scenario "$link: 50 clients" load -c 50 -n "$n" -t set,get
	scenario "$link: 1 client" load -c 1 -n $((n / 5)) -t set,get
	scenario "$link: pipelines of 16" load -c 50 -P 16 -n $((n * 4)) -t set,get
	scenario "$link: values of 100,000 bytes" load -c 50 -d 100000 -n $((n / 20)) -t set,get
	scenario "$link: 200 clients" load -c 200 -n "$n" -t set,get
	scenario "$link: a refused connection says so" refused
	scenario "$link: a host that is not there" unanswered
	scenario "$link: all memory comes back" memory_back
	link_down
done
finish
