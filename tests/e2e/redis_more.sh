#!/usr/bin/env bash
# redis_more.sh [KIND...] - what redis.sh leaves out, over TAP and memif unless told:
#   - replication: a replica under Pronk follows a server on the other side, and the other way round (over memif both are under
#     Pronk): full copy, stream of changes under load, the link is cut and heals, partial resynchronisation
#   - append-only file: rewritten under load; the server is killed and has everything again
#   - RDB: saved, restarted, all there
#   - publish and subscribe, transactions, blocking pops, scripts
. "$(dirname "${BASH_SOURCE[0]}")/apps.sh"

# server NAME SIDE PORT OPTION...: a redis-server in a folder of its own; its id is in $spawned
server() {
	local name=$1 side=$2 port=$3 addr=$addr_p
	shift 3
	[ "$side" = p ] || addr=$addr_k
	mkdir -p "$work/$name"
	spawn "$name" "$side" redis-server --port "$port" --bind "$addr" --protected-mode no --dir "$work/$name" --save '' --repl-diskless-sync-delay 0 "$@"
	wait_until 20 eval "grep -q 'Ready to accept connections' '$work/$name.log' || process_gone $spawned"
	! process_gone "$spawned" || because "redis-server ended: $(tail -1 "$work/$name.log")"
}
info() { redis_cli "$1" "$2" info "$3" | tr -d '\r' | sed -n "s/^$4://p"; }
digest() { redis_cli "$1" "$2" debug digest; }
info_is() { [ "$(info "$1" "$2" "$3" "$4")" = "$5" ]; }
in_step() { [ "$(info $1 $2 replication master_repl_offset)" = "$(info $3 $4 replication master_repl_offset)" ]; }

# replicate MASTER_SIDE REPLICA_SIDE
replicate() {
	local m=$1 r=$2 addr=$addr_p master replica full
	[ "$m" = p ] || addr=$addr_k
	server master "$m" 7011 --enable-debug-command yes && master=$spawned || return
	redis_cli "$m" 7011 debug populate 20000 key 200 >/dev/null || because "no data" || return
	server replica "$r" 7012 --enable-debug-command yes --replicaof "$addr" 7011 && replica=$spawned || return
	wait_until 30 info_is "$r" 7012 replication master_link_status up || because "the replica does not follow: $(tail -1 "$work/replica.log")" || return
	redis_load "$m" 7011 -n $n -c 20 -r 10000 -t set,incr,lpush,sadd || return
	wait_until 20 in_step "$m" 7011 "$r" 7012 || because "the replica lags" || return
	[ "$(digest "$m" 7011)" = "$(digest "$r" 7012)" ] || because "master and replica differ" || return
	# the connection ends in the middle; it goes on where it was
	full=$(info "$m" 7011 stats sync_full)
	redis_cli "$m" 7011 client kill type replica >/dev/null
	redis_load "$m" 7011 -n $((n / 4)) -c 20 -r 10000 -t set || return
	wait_until 30 info_is "$r" 7012 replication master_link_status up || because "the replica does not come again" || return
	wait_until 20 in_step "$m" 7011 "$r" 7012 || because "the replica lags after the cut" || return
	[ "$(digest "$m" 7011)" = "$(digest "$r" 7012)" ] || because "master and replica differ after the cut" || return
	[ "$(info "$m" 7011 stats sync_full)" = "$full" ] || because "a full copy instead of a partial one" || return
	# the roles change
	redis_cli "$r" 7012 replicaof no one >/dev/null
	redis_cli "$r" 7012 set proof 1 | grep -qx OK || because "the replica takes no writes" || return
	app_end "$replica" && app_end "$master" || because "they do not end"
}

aof() {
	local first keys
	server aof p 7013 --appendonly yes --appendfsync always --auto-aof-rewrite-percentage 0 --enable-debug-command yes && first=$spawned || return
	redis_load p 7013 -n $((n / 4)) -c 20 -r 5000 -t set,incr,lpush || return
	redis_cli p 7013 bgrewriteaof >/dev/null
	redis_load p 7013 -n $((n / 4)) -c 20 -r 5000 -t set,sadd || return
	wait_until 30 info_is p 7013 persistence aof_rewrite_in_progress 0 || because "the rewrite does not end" || return
	info_is p 7013 persistence aof_last_bgrewrite_status ok || because "the rewrite failed" || return
	keys=$(digest p 7013)
	app_kill "$first"
	server aof p 7013 --appendonly yes --enable-debug-command yes || return
	[ "$(digest p 7013)" = "$keys" ] || because "not everything is there after the kill" || return
	app_end "$spawned"
}

rdb() {
	local keys
	server rdb p 7014 --enable-debug-command yes || return
	redis_load p 7014 -n $((n / 4)) -c 20 -r 5000 -t set,zadd,hset || return
	redis_cli p 7014 save | grep -qx OK || because "SAVE failed" || return
	keys=$(digest p 7014)
	app_end "$spawned" || return
	server rdb p 7014 --enable-debug-command yes || return
	[ "$(digest p 7014)" = "$keys" ] || because "not everything is there after the restart" || return
	app_end "$spawned"
}

features() {
	local out
	server features p 7015 || return
	# a subscriber hears what is published
	k timeout 10 redis-cli -h "$addr_p" -p 7015 subscribe news >"$work/heard" 2>&1 &
	pids+=("$!")
	wait_until 10 eval "redis_cli p 7015 pubsub numsub news | grep -qx 1" || because "no subscriber" || return
	[ "$(redis_cli p 7015 publish news leap)" = 1 ] || because "nobody was told" || return
	wait_until 5 grep -qx leap "$work/heard" || because "the subscriber heard nothing" || return
	kill "${pids[-1]}"
	# a blocking pop gets what comes later
	k timeout 10 redis-cli -h "$addr_p" -p 7015 blpop list 5 >"$work/popped" 2>&1 &
	pids+=("$!")
	wait_until 5 info_is p 7015 clients blocked_clients 1 || because "nobody waits" || return
	redis_cli p 7015 rpush list late >/dev/null
	wait "${pids[-1]}"
	grep -qx late "$work/popped" || because "the pop got $(tr '\n' ' ' <"$work/popped")" || return
	out=$(redis_cli p 7015 eval 'for i = 1, 1000 do redis.call("rpush", KEYS[1], i) end return redis.call("llen", KEYS[1])' 1 numbers)
	[ "$out" = 1000 ] || because "the script says $out" || return
	app_end "$spawned"
}

n=20000
[ -z "$quick" ] || n=4000
# redis-benchmark opens 20 connections for each command and ends with its last request: where SYNs get lost, before the last
# connections have come about
many=60
[ -z "${PKE_IMPAIR:-}" ] || many=30
[ $# -gt 0 ] || set -- tap memif
for kind; do
	rm -rf "$work"/{master,replica,aof,rdb,features}
	up "$kind"
	memory_note
	scenario "$link: Redis, a replica on this side" through tcp_connected 2 replicate k p
	scenario "$link: Redis, a replica on the other side" through tcp_accepted 2 replicate p k
	scenario "$link: Redis, append-only file" through tcp_accepted $many aof
	scenario "$link: Redis, saved and restarted" through tcp_accepted $many rdb
	scenario "$link: Redis, publish, blocking pop, script" through tcp_accepted 5 features
	scenario "$link: Redis, all memory comes back" settled
	link_down
done
finish
