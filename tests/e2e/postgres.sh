#!/usr/bin/env bash
# postgres.sh [KIND...] - Debian's PostgreSQL (a process for each connection, as user postgres), over TAP unless told:
#   - pgbench: 8 clients, every transaction done; 4 clients that connect for each transaction; the balance adds up
#   - a 16 MB value there and back, byte-exact; COPY both ways
#   - LISTEN/NOTIFY between two connections
#   - a client under Pronk against a server of the kernel's
#   - a backend is terminated: its client sees that, the server goes on
#   - restart and orderly end; all memory comes back
# With --mode inline a program of root's has the stack: PostgreSQL refuses to run as root, and no other user may open a port.
. "$(dirname "${BASH_SOURCE[0]}")/apps.sh"

bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
[ -x "$bin/postgres" ] || die "PostgreSQL is missing: tools/install-deps --test"
pgbench=$bin/pgbench
[ -x "$pgbench" ] || pgbench=pgbench
hosted=1
as_postgres=(setpriv --reuid=postgres --regid=postgres --init-groups --)

cluster_make() {
	[ ! -d "$work/pg" ] || return 0
	install -d -o postgres -m 700 "$work/pg"
	p_raw "${as_postgres[@]}" env -C / "$bin/initdb" -D "$work/pg" -A trust -N -E UTF8 --locale=C >"$work/initdb.log" 2>&1 ||
		because "initdb: $(tail -1 "$work/initdb.log")" || return
	cat >>"$work/pg/postgresql.conf" <<-END
		unix_socket_directories = ''
		shared_buffers = 32MB
		max_connections = 60
		fsync = off
		huge_pages = off
		port = 5432
		logging_collector = off
	END
	echo "host all all 198.18.0.0/15 trust" >>"$work/pg/pg_hba.conf"
}

# server_start SIDE
server_start() {
	local addr=$addr_p
	[ "$1" = p ] || addr=$addr_k
	cluster_make || return
	spawn postgres "$1" "${as_postgres[@]}" env -C / "$bin/postgres" -D "$work/pg" -c listen_addresses="$addr"
	postgres_pid=$spawned
	wait_until 30 eval "grep -q 'ready to accept connections' '$work/postgres.log' || process_gone $postgres_pid"
	! process_gone "$postgres_pid" || because "postgres ended: $(tail -1 "$work/postgres.log")"
}
server_end() {
	# fast shutdown
	kill -INT "$postgres_pid"
	wait_until 20 process_gone "$postgres_pid" || because "postgres does not end" || return
	grep -q 'database system is shut down' "$work/postgres.log" || because "not orderly: $(tail -1 "$work/postgres.log")" || return
	# the FATAL lines of clients that a scenario ended are those of the test
	! grep -E 'PANIC|server process .* was terminated' "$work/postgres.log" >"$work/pg-bad" || because "$(head -1 "$work/pg-bad")"
}

# sql TEXT: psql on side k
sql() { k timeout 60 psql -X -q -At -v ON_ERROR_STOP=1 -h "$addr_p" -U postgres postgres -c "$1" 2>>"$work/psql.log"; }

# bench SIDE OPTION...: pgbench on that side, all transactions done
bench_run() {
	local from=$1 addr=$addr_p
	shift
	[ "$from" = k ] || addr=$addr_k
	"$from" timeout "${limit_s:-90}" "$pgbench" -h "$addr" -U postgres -n "$@" postgres >"$work/pgbench.out" 2>"$work/pgbench.log" ||
		because "pgbench: exit status $?: $(tail -1 "$work/pgbench.log")" || return
	grep -qE 'number of failed transactions: 0 ' "$work/pgbench.out" || because "pgbench: $(grep failed "$work/pgbench.out")" || return
	remark "$(awk '/^tps/ { printf "%.0f transactions/s", $3 }' "$work/pgbench.out")"
}
bench_init() {
	local from=$1 addr=$addr_p
	[ "$from" = k ] || addr=$addr_k
	"$from" timeout 90 "$pgbench" -h "$addr" -U postgres -i -q -s 2 postgres >"$work/pgbench.out" 2>&1 || because "pgbench -i: $(tail -1 "$work/pgbench.out")"
}
balance() {
	[ "$(sql 'select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history)')" = t ] ||
		because "the accounts do not add up"
}

value() {
	random_file "$work/value" 16
	{
		echo "create table if not exists v(x text); truncate v;"
		echo "copy v from stdin;"
		base64 -w 0 "$work/value"
		printf '\n\\.\n'
	} >"$work/value.sql"
	k timeout 60 psql -X -q -v ON_ERROR_STOP=1 -h "$addr_p" -U postgres postgres -f "$work/value.sql" >"$work/psql.log" 2>&1 || because "psql: $(tail -1 "$work/psql.log")" || return
	sql 'select x from v' | base64 -d >"$work/value.back"
	[ "$(sum "$work/value.back")" = "$(sum "$work/value")" ] || because "what came back differs" || return
	sql 'copy pgbench_accounts to stdout' >"$work/accounts"
	[ "$(wc -l <"$work/accounts")" = 200000 ] || because "COPY gave $(wc -l <"$work/accounts") rows" || return
	rm -f "$work"/value* "$work/accounts"
}

# two connections of one program; it looks for notifications after each command
notify() {
	{
		echo "listen news;"
		sleep 1
		echo "select 1;"
	} | k timeout 20 psql -X -q -At -h "$addr_p" -U postgres postgres >"$work/listen.out" 2>&1 &
	pids+=("$!")
	wait_until 10 eval "[ \"\$(sql \"select count(*) from pg_stat_activity where query = 'listen news;'\")\" = 1 ]" || because "no listener" || return
	sql "notify news, 'leap'" || because "notify failed" || return
	wait "${pids[-1]}" || because "psql: $(tail -1 "$work/listen.out")" || return
	grep -q 'Asynchronous notification "news" with payload "leap"' "$work/listen.out" || because "no notification: $(cat "$work/listen.out")"
}

terminated() {
	local pid text
	spawn sleeper k psql -X -At -h "$addr_p" -U postgres postgres -c 'select pg_sleep(60)'
	wait_until 10 sleeper_runs || because "no sleeper" || return
	[ "$(sql "select count(pg_terminate_backend(pid)) from pg_stat_activity where query like 'select pg_sleep%'")" = 1 ] || because "not terminated" || return
	wait_until 10 process_gone "$spawned" || because "its client does not see the end" || return
	grep -q 'terminating connection due to administrator command' "$work/sleeper.log" || because "its client says: $(tail -1 "$work/sleeper.log")" || return
	[ "$(sql 'select 1')" = 1 ] || because "the server does not go on"
}
sleeper_runs() { [ "$(sql "select count(*) from pg_stat_activity where query like 'select pg_sleep%'")" = 1 ]; }

# a client that dies in the middle of a query's result
client_dies() {
	local before
	before=$(sql 'select count(*) from pg_stat_activity where client_addr is not null')
	spawn dies k psql -X -At -h "$addr_p" -U postgres postgres -c 'select repeat(md5(i::text), 100) from generate_series(1, 1000000) i' -o "|sleep 60"
	wait_until 10 backends_are $((before + 1)) || because "no query" || return
	sleep 0.3
	app_kill "$spawned"
	wait_until 20 backends_are "$before" || because "its backend stays: $(sql 'select count(*) from pg_stat_activity where client_addr is not null')"
}
backends_are() { [ "$(sql 'select count(*) from pg_stat_activity where client_addr is not null')" = "$1" ]; }

restart() {
	server_end || return
	server_start p || return
	[ "$(sql 'select count(*) from pgbench_accounts')" = 200000 ] || because "the data is gone"
}

n=1000
[ -z "$quick" ] || n=100
[ $# -gt 0 ] || set -- tap
for kind; do
	up "$kind" 'stacks = 2;'
	memory_note
	scenario "$link: PostgreSQL starts as user postgres" server_start p
	scenario "$link: pgbench fills its tables" through tcp_accepted 1 bench_init k
	scenario "$link: pgbench, 8 clients" through tcp_accepted 8 bench_run k -c 8 -j 2 -t $n
	scenario "$link: pgbench, select only, prepared" through tcp_accepted 8 bench_run k -c 8 -j 2 -S -M prepared -t $((n * 5))
	scenario "$link: pgbench connects for each transaction" through tcp_accepted $((n / 4)) bench_run k -c 4 -C -t $((n / 8))
	scenario "$link: PostgreSQL, the balance adds up" balance
	scenario "$link: PostgreSQL, 16 MB there and back, COPY" value
	scenario "$link: PostgreSQL, LISTEN and NOTIFY" notify
	scenario "$link: PostgreSQL, a backend is terminated" terminated
	scenario "$link: PostgreSQL, a client dies in a result" client_dies
	scenario "$link: PostgreSQL restarts" restart
	scenario "$link: PostgreSQL ends" server_end
	scenario "$link: PostgreSQL, all memory comes back" settled
	scenario "$link: a kernel PostgreSQL" server_start k
	scenario "$link: pgbench under Pronk, 8 clients" through tcp_connected 8 bench_run p -c 8 -j 2 -t $n
	scenario "$link: pgbench under Pronk connects each time" through tcp_connected $((n / 4)) bench_run p -c 4 -C -t $((n / 8))
	scenario "$link: the kernel PostgreSQL ends" server_end
	scenario "$link: pgbench, all memory comes back" settled
	link_down
	rm -rf "$work/pg"
done
finish
