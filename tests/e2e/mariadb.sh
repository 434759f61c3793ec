#!/usr/bin/env bash
# mariadb.sh [KIND...] - Debian's MariaDB (a thread for each connection) under sysbench, over TAP unless told:
#   - OLTP read-write and point selects from 8 threads, without one error
#   - mysqlslap, a connection for each query
#   - a 12 MB blob there and back, byte-exact
#   - a query is killed from another connection
#   - sysbench under Pronk against a server of the kernel's; thread pool
#   - orderly end; all memory comes back
. "$(dirname "${BASH_SOURCE[0]}")/apps.sh"

data_make() {
	[ ! -d "$work/db" ] || return 0
	install -d -o mysql -m 700 "$work/db"
	mariadb-install-db --no-defaults --user=mysql --datadir="$work/db" --auth-root-authentication-method=normal --skip-test-db \
		>"$work/install-db.log" 2>&1 || because "mariadb-install-db: $(tail -1 "$work/install-db.log")"
}

# server_start SIDE [OPTION...]
server_start() {
	local side=$1 addr=$addr_p user=mysql
	[ "$1" = p ] || addr=$addr_k
	# it changes its user before it opens its port, and another user may not have a stack (doc/limits.md)
	[ "$mode" != inline ] || user=root
	shift
	data_make || return
	spawn mariadb "$side" mariadbd --no-defaults --user=$user --datadir="$work/db" --bind-address="$addr" --port=3306 --socket="$work/db/sock" \
		--skip-name-resolve --skip-log-bin --innodb-buffer-pool-size=64M --innodb-log-file-size=32M --innodb-flush-log-at-trx-commit=0 \
		--innodb-doublewrite=0 --max-connections=200 --max-allowed-packet=32M --pid-file="$work/db/pid" --aria-pagecache-buffer-size=8M "$@"
	mariadb_pid=$spawned
	wait_until 60 eval "grep -q 'ready for connections' '$work/mariadb.log' || process_gone $mariadb_pid"
	! process_gone "$mariadb_pid" || because "mariadbd ended: $(tail -1 "$work/mariadb.log")" || return
	mariadb -S "$work/db/sock" -u root -e "create or replace user bench@'198.18.%' identified by 'pw'; grant all on *.* to bench@'198.18.%'; create database if not exists bench" \
		2>"$work/client.log" || because "mariadb: $(tail -1 "$work/client.log")"
}
server_end() {
	kill "$mariadb_pid"
	wait_until 60 process_gone "$mariadb_pid" || because "mariadbd does not end" || return
	grep -q 'Shutdown complete' "$work/mariadb.log" || because "not orderly: $(tail -1 "$work/mariadb.log")" || return
	! grep -E '\[ERROR\]|signal [0-9]+' "$work/mariadb.log" >"$work/db-bad" || because "$(head -1 "$work/db-bad")"
}

sql() { k timeout 60 mariadb -h "$addr_p" -u bench -ppw --max-allowed-packet=32M -N -B bench "$@" 2>>"$work/client.log"; }

# bench_run SIDE TEST COMMAND [OPTION...]: sysbench on that side
bench_run() {
	local from=$1 addr=$addr_p test=$2 command=$3
	shift 3
	[ "$from" = k ] || addr=$addr_k
	"$from" timeout "${limit_s:-90}" sysbench "$test" --mysql-host="$addr" --mysql-user=bench --mysql-password=pw --mysql-db=bench --mysql-ssl=off \
		--tables=2 --table-size=10000 --time=0 "$@" "$command" >"$work/sysbench.out" 2>&1 ||
		because "sysbench: exit status $?: $(grep -m1 FATAL "$work/sysbench.out" || tail -1 "$work/sysbench.out")" || return
	! grep -q FATAL "$work/sysbench.out" || because "sysbench: $(grep -m1 FATAL "$work/sysbench.out")" || return
	[ "$command" = run ] || return 0
	# deadlocks are the data base's own; sysbench counts them apart
	grep -qE 'reconnects: +0 ' "$work/sysbench.out" || because "sysbench: $(grep reconnects "$work/sysbench.out")" || return
	remark "$(awk -F'[( ]+' '/transactions:/ { print $4, "transactions/s" }' "$work/sysbench.out")"
}

slap() {
	k timeout 60 mariadb-slap -h "$addr_p" -u bench -ppw --concurrency=8 --iterations=1 --number-of-queries=$((n / 4)) --detach=1 \
		--create-schema=bench --no-drop --query='select count(*) from sbtest1' >"$work/slap.out" 2>&1 || because "mysqlslap: $(tail -1 "$work/slap.out")"
}

blob() {
	random_file "$work/blob" 12
	{
		echo "create or replace table b(x longblob);"
		printf "insert into b values (x'"
		od -An -v -tx1 "$work/blob" | tr -d ' \n'
		echo "');"
	} >"$work/blob.sql"
	sql <"$work/blob.sql" || because "insert: $(tail -1 "$work/client.log")" || return
	sql -e 'select to_base64(x) from b' | sed 's/\\n//g' | base64 -d >"$work/blob.back" || because "select: $(tail -1 "$work/client.log")" || return
	[ "$(sum "$work/blob.back")" = "$(sum "$work/blob")" ] || because "what came back differs" || return
	rm -f "$work"/blob*
}

killed() {
	local id
	spawn sleeper k mariadb -h "$addr_p" -u bench -ppw bench -e 'select sleep(60)'
	wait_until 10 eval '[ -n "$(sleeper_id)" ]' || because "no sleeper" || return
	id=$(sleeper_id)
	sql -e "kill $id" || because "kill: $(tail -1 "$work/client.log")" || return
	wait_until 10 process_gone "$spawned" || because "its client does not see the end" || return
	[ "$(sql -e 'select 1')" = 1 ] || because "the server does not go on"
}
sleeper_id() { sql -e "select id from information_schema.processlist where info like 'select sleep%'"; }

n=2000
[ -z "$quick" ] || n=400
[ $# -gt 0 ] || set -- tap
for kind; do
	up "$kind"
	memory_note
	scenario "$link: MariaDB starts" server_start p
	scenario "$link: sysbench fills its tables" through tcp_accepted 1 bench_run k oltp_read_write prepare
	scenario "$link: sysbench OLTP, 8 threads" through tcp_accepted 8 bench_run k oltp_read_write run --threads=8 --events=$n
	scenario "$link: sysbench point selects, 16 threads" through tcp_accepted 16 bench_run k oltp_point_select run --threads=16 --events=$((n * 10))
	scenario "$link: mysqlslap connects each time" through tcp_accepted $((n / 4)) slap
	scenario "$link: MariaDB, a 12 MB blob there and back" blob
	scenario "$link: MariaDB, a connection is killed" killed
	scenario "$link: MariaDB ends" server_end
	scenario "$link: MariaDB with a thread pool" server_start p --thread-handling=pool-of-threads --thread-pool-size=2
	scenario "$link: sysbench OLTP, thread pool" through tcp_accepted 16 bench_run k oltp_read_write run --threads=16 --events=$n
	scenario "$link: MariaDB with a thread pool ends" server_end
	scenario "$link: MariaDB, all memory comes back" settled
	scenario "$link: a kernel MariaDB" server_start k
	scenario "$link: sysbench under Pronk, 8 threads" through tcp_connected 8 bench_run p oltp_read_write run --threads=8 --events=$n
	scenario "$link: the kernel MariaDB ends" server_end
	scenario "$link: sysbench, all memory comes back" settled
	link_down
	rm -rf "$work/db"
done
finish
