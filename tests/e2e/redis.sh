#!/usr/bin/env bash
# redis.sh [KIND...] - Debian's redis-server under Pronk, its clients on the other side of the link (the kernel, or another
# pronkd for memif). For every kind of port:
#   - redis-benchmark without one error: -c 50, -c 1, -P 16, -d 3, -d 100000, 500 clients
#   - a 64 MB value set and read back byte-exact
#   - BGSAVE while a load runs, and the file read by another redis-server
#   - --daemonize yes
#   - all endpoints and memory come back when the server has ended
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

big_value() {
	local size=$((64 << 20)) sum
	[ -z "$quick" ] || size=$((4 << 20))
	head -c "$size" /dev/urandom >"$work/big"
	limit_s=60 redis_cli p 7001 -x set big <"$work/big" >"$work/reply" 2>&1 || because "set: $(cat "$work/reply")" || return
	grep -qx OK "$work/reply" || because "set: $(head -c 200 "$work/reply")" || return
	limit_s=60 redis_cli p 7001 get big >"$work/back" 2>"$work/cli.log" || because "get: $(cat "$work/cli.log")" || return
	sum=$(head -c "$size" "$work/back" | sha256sum)
	[ "$sum" = "$(sha256sum <"$work/big")" ] || because "what came back differs ($(stat_size "$work/back") bytes)" || return
	redis_cli p 7001 del big >/dev/null
	rm -f "$work/big" "$work/back"
}
stat_size() { wc -c <"$1"; }

bgsave_done() { redis_cli p 7001 info persistence | tr -d '\r' | grep -qx 'rdb_bgsave_in_progress:0'; }
bgsave() {
	local keys loader
	redis_cli p 7001 debug populate 100000 key 100 >/dev/null 2>&1 || true
	redis_load p 7001 -n 20000 -c 10 -r 20000 -t set || return
	keys=$(redis_cli p 7001 dbsize)
	redis_cli p 7001 bgsave | grep -q 'Background saving started' || because "BGSAVE was refused" || return
	redis_load p 7001 -n 50000 -c 50 -t get || return
	wait_until 20 bgsave_done || because "BGSAVE does not end" || return
	redis_cli p 7001 info persistence | tr -d '\r' | grep -qx 'rdb_last_bgsave_status:ok' || because "BGSAVE failed" || return
	# the file is whole
	redis-check-rdb "$work/dump.rdb" >"$work/rdb.out" 2>&1 || because "redis-check-rdb: $(tail -1 "$work/rdb.out")" || return
	loader=$(sed -n 's/.*\] \([0-9]*\) keys read.*/\1/p' "$work/rdb.out")
	[ "$loader" = "$keys" ] || because "the file has $loader keys, the server had $keys" || return
	redis_cli p 7001 flushall >/dev/null
}

daemonize() {
	local pid
	p redis-server --port 7002 --bind "$addr_p" --protected-mode no --save '' --daemonize yes --dir "$work" \
		--pidfile "$work/redis.pid" --logfile "$work/redis-daemon.log" >"$work/daemon.out" 2>&1 ||
		because "redis-server --daemonize yes: exit status $?" || return
	wait_until 10 test -s "$work/redis.pid" || because "no pid file: $(tail -1 "$work/redis-daemon.log")" || return
	pid=$(cat "$work/redis.pid")
	pids+=("$pid")
	wait_until 10 redis_cli p 7002 ping || because "the daemon does not answer" || return
	redis_load p 7002 -n 20000 -c 50 -t set,get || return
	redis_cli p 7002 shutdown nosave >/dev/null 2>&1
	wait_until 10 process_gone "$pid" || because "the daemon does not end"
}

load() { redis_load p 7001 "$@" && remark "$(printf '%.0f requests/s, p50 %s ms, p99 %s ms' "$rps" "$p50" "$p99")"; }

server_end() {
	app_end "$redis_pid" || because "redis-server does not end" || return
	memory_back
}

n=${quick:+10000}
n=${n:-50000}
[ $# -gt 0 ] || set -- tap afpacket afxdp memif
for kind; do
	rm -f "$work/dump.rdb"
	up "$kind"
	memory_note
	scenario "$link: redis-server starts" redis_start p 7001 --maxclients 1000
	scenario "$link: 50 clients" load -c 50 -n "$n" -t set,get
	scenario "$link: 1 client" load -c 1 -n $((n / 5)) -t set,get
	scenario "$link: pipelines of 16" load -c 50 -P 16 -n $((n * 4)) -t set,get
	scenario "$link: values of 3 bytes, all tests" load -c 50 -d 3 -n $((n / 5))
	scenario "$link: values of 100,000 bytes" load -c 50 -d 100000 -n $((n / 20)) -t set,get
	scenario "$link: 500 clients" load -c 500 -n "$n" -t set,get
	scenario "$link: a big value comes back byte-exact" big_value
	scenario "$link: BGSAVE under load" bgsave
	scenario "$link: --daemonize yes" daemonize
	scenario "$link: all memory comes back" server_end
	link_down
done
finish
