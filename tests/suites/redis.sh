#!/usr/bin/env bash
# redis.sh: Redis's own suite (source package redis), against a server that runs already ("external") and with the servers that the
# suite starts itself, replication among them. PKS_UNITS chooses units of the second kind, PKS_EXTERNAL of the first (all: every unit
# that knows this mode); "-" is none.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

sources=$("$suites_dir/fetch" redis) || die "no sources of Redis"
command -v redis-server >/dev/null && command -v tclsh >/dev/null || die "install redis-server and tcl (tools/install-deps --suites)"
# the suite starts src/redis-server of its own folder
place=$work/redis
mkdir -p "$place/src"
cp -r "$sources/tests" "$sources/runtest" "$sources/redis.conf" "$sources/sentinel.conf" "$place/"
for name in server cli benchmark check-aof check-rdb sentinel; do
	path=$(command -v redis-$name) || path=$(command -v redis-server)
	ln -s "$path" "$place/src/redis-$name"
done
spawned="integration/replication integration/replication-2 integration/replication-3 integration/replication-4 integration/replication-psync
	integration/replication-buffer integration/block-repl integration/psync2 integration/psync2-reg integration/aof integration/rdb
	integration/redis-cli integration/redis-benchmark unit/protocol unit/networking unit/maxmemory unit/wait unit/limits"
external=all
[ -z "$quick" ] || { spawned="integration/replication-4 unit/protocol unit/networking"; external="unit/type/string unit/multi unit/pubsub"; }
[ -z "${PKS_UNITS:-}" ] || { spawned=$PKS_UNITS; external=-; }
external=${PKS_EXTERNAL:-$external}
[ "$spawned" != - ] || spawned=

# lines LOG PREFIX: "[ok]: name" and its siblings. A name that comes twice gets a number, but those with something random in them or
# that come as often as time allows (psync2's layouts, psync2-reg's kills) are one result: the worst.
lines() {
	sed 's/\x1b\[[0-9;]*m//g' "$1" | awk -v p="$2" '
		match($0, /^\[(ok|err|exception|timeout|ignore|skip)\]: /) {
			kind = substr($0, 2, index($0, "]") - 2); name = substr($0, RLENGTH + 1)
			sub(/ \([0-9.]+ (ms|s|seconds)\)$/, "", name); sub(/ in tests\/.*/, "", name)
			result = kind == "ok" ? "pass" : kind == "ignore" || kind == "skip" ? "skip" : "fail"
			if (p ~ /psync2/) {
				gsub(/#[0-9]+|x = [0-9]+|CYCLE [0-9]+/, "N", name)
				if (worst[name] != "fail") worst[name] = result
				next
			}
			n = ++seen[name]
			print result, p ":" name (n > 1 ? "#" n : "")
		}
		END { for (name in worst) print worst[name], p ":" name }'
}

suite_run() {
	local unit tags="--tags -slow --durable --no-latency" server_pid log=$work/$1.external.log
	mkdir -p "$work/$1.data"
	: >"$2"
	for unit in $spawned; do
		# shellcheck disable=SC2086
		(cd "$place" && under "$1" timeout -k 10 400 ./runtest $tags --clients 1 --single "$unit" >"$work/$1.${unit//\//.}.log" 2>&1) </dev/null
		lines "$work/$1.${unit//\//.}.log" "$unit" >>"$2"
		rm -rf "$place/tests/tmp"
		mkdir -p "$place/tests/tmp"
	done
	[ "$external" != - ] || return 0
	under "$1" redis-server --port 6399 --bind 127.0.0.1 --protected-mode no --save "" --dir "$work/$1.data" --enable-protected-configs yes \
		--enable-debug-command yes --enable-module-command yes >"$work/$1.server.log" 2>&1 &
	server_pid=$!
	wait_until 10 grep -q 'Ready to accept' "$work/$1.server.log"
	# shellcheck disable=SC2046,SC2086
	(cd "$place" && under "$1" timeout -k 10 "${PKS_LIMIT_S:-900}" ./runtest --host 127.0.0.1 --port 6399 $tags --skiptest '/CONFIG SET (port|bind|rollback)' \
		$([ "$external" = all ] || printf -- '--single %s ' $external) >"$log" 2>&1) </dev/null
	lines "$log" external >>"$2"
	process_end "$server_pid"
}

suite redis kernel loopback
