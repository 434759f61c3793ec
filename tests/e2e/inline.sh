#!/usr/bin/env bash
# inline.sh - no service at either end of a memif link: every program has its stack in it, and each run of a client is another stack than the
# one before, with other sequence numbers and ports. Servers with several threads and processes, whatever --mode says:
#   - nginx in one process, and master and two workers: a connection for each request, from the same ports by one client
#     after the other, and by ab and wrk; keep-alive
#   - memcached -t 4: verified values, and many requests
#   - MariaDB: sysbench with 8 threads, again and again
#   - AF_XDP, which takes the whole interface over: who connects while the program starts stays connected
export PKE_MODE=inline PKE_PEER=inline
. "$(dirname "${BASH_SOURCE[0]}")/apps.sh"

# nginx_start MASTER
nginx_start() {
	mkdir -p "$work/www" "$work/nginx"
	echo hello >"$work/www/small"
	: >"$work/nginx-error.log"
	cat >"$work/nginx.conf" <<-END
		daemon off;
		master_process $1;
		worker_processes 2;
		user root;
		pid $work/nginx/pid;
		error_log $work/nginx-error.log notice;
		events { worker_connections 2048; }
		http {
			access_log off;
			sendfile on;
			keepalive_requests 1000000;
			client_body_temp_path $work/nginx; proxy_temp_path $work/nginx; fastcgi_temp_path $work/nginx;
			uwsgi_temp_path $work/nginx; scgi_temp_path $work/nginx;
			server { listen $addr_p:8080; root $work/www; }
		}
	END
	spawn nginx p nginx -c "$work/nginx.conf" -e "$work/nginx-error.log"
	nginx_pid=$spawned
	listens 8080 30
}
nginx_end() {
	kill -QUIT "$nginx_pid"
	wait_until 20 process_gone "$nginx_pid" || because "nginx does not end" || return
	! grep -E '\[(alert|emerg|crit)\]' "$work/nginx-error.log" >"$work/nginx-bad" || because "nginx says: $(head -1 "$work/nginx-bad")"
}

# The server ends each connection first, so its end waits in TIME_WAIT when the next client comes from the same port.
same_ports() {
	local i
	for i in 1 2 3; do
		k timeout 60 "$python" "$e2e_dir/tcp.py" get "$addr_p" 8080 20000 30 2>"$work/get.log" || because "client $i: $(tail -1 "$work/get.log")" || return
	done
}

# each COUNT COMMAND...: again and again
each() {
	local i count=$1
	shift
	for ((i = 0; i < count; i++)); do
		"$@" || return
	done
}

memcached_start() {
	spawn memcached p memcached -u root -vv -l "$addr_p" -p 11211 -t 4 -c 1024
	memcached_pid=$spawned
	wait_until 20 eval "grep -q 'server listening' '$work/memcached.log' || process_gone $memcached_pid"
	! process_gone "$memcached_pid" || because "memcached ended: $(tail -1 "$work/memcached.log")"
}
values() {
	k timeout 100 "$python" "$e2e_dir/tcp.py" memcached "$addr_p" 11211 16 "$values" 2>"$work/values.log" || because "$(tail -1 "$work/values.log")"
}
slap() {
	k timeout 60 memcslap --servers="$addr_p:11211" --concurrency=8 --execute-number=$((n / 8)) --initial-load=100 --test=get >"$work/slap.out" 2>&1 ||
		because "memcslap: exit status $?: $(tail -1 "$work/slap.out")"
}
memcached_end() { app_end "$memcached_pid"; }

# As root to the end: it changes its user before it opens its port, and another user may not have a stack.
mariadb_start() {
	mkdir "$work/db"
	mariadb-install-db --no-defaults --user=root --datadir="$work/db" --auth-root-authentication-method=normal --skip-test-db \
		>"$work/install-db.log" 2>&1 || because "mariadb-install-db: $(tail -1 "$work/install-db.log")" || return
	spawn mariadb p mariadbd --no-defaults --user=root --datadir="$work/db" --bind-address="$addr_p" --port=3306 --socket="$work/db/sock" \
		--skip-name-resolve --skip-log-bin --innodb-buffer-pool-size=64M --innodb-log-file-size=32M --innodb-flush-log-at-trx-commit=0 \
		--innodb-doublewrite=0 --max-connections=200 --pid-file="$work/db/pid" --aria-pagecache-buffer-size=8M
	mariadb_pid=$spawned
	wait_until 60 eval "grep -q 'ready for connections' '$work/mariadb.log' || process_gone $mariadb_pid"
	! process_gone "$mariadb_pid" || because "mariadbd ended: $(tail -1 "$work/mariadb.log")" || return
	mariadb -S "$work/db/sock" -u root -e "create or replace user bench@'%' identified by 'pw'; grant all on *.* to bench@'%'; create database bench" \
		2>"$work/client.log" || because "mariadb: $(tail -1 "$work/client.log")" || return
	# filled through the kernel's local socket
	sysbench oltp_read_write --mysql-socket="$work/db/sock" --mysql-user=root --mysql-db=bench --tables=2 --table-size=1000 prepare \
		>"$work/prepare.log" 2>&1 || because "sysbench prepare: $(tail -1 "$work/prepare.log")"
}
# sysbench_run TEST EVENTS
sysbench_run() {
	k timeout 90 sysbench "$1" --mysql-host="$addr_p" --mysql-user=bench --mysql-password=pw --mysql-db=bench --mysql-ssl=off \
		--tables=2 --table-size=1000 --time=0 --threads=8 --events="$2" run >"$work/sysbench.out" 2>&1 ||
		because "sysbench: exit status $?: $(grep -m1 FATAL "$work/sysbench.out" || tail -1 "$work/sysbench.out")" || return
	! grep -q FATAL "$work/sysbench.out" || because "sysbench: $(grep -m1 FATAL "$work/sysbench.out")" || return
	grep -qE 'reconnects: +0 ' "$work/sysbench.out" || because "sysbench: $(grep reconnects "$work/sysbench.out")"
}
mariadb_end() {
	kill "$mariadb_pid"
	wait_until 60 process_gone "$mariadb_pid" || because "mariadbd does not end" || return
	grep -q 'Shutdown complete' "$work/mariadb.log" || because "not orderly: $(tail -1 "$work/mariadb.log")" || return
	! grep -E '\[ERROR\]|signal [0-9]+' "$work/mariadb.log" >"$work/db-bad" || because "$(head -1 "$work/db-bad")"
}

early() {
	spawn early k "$python" "$e2e_dir/tcp.py" early "$addr_p" 7001 3
	local early_pid=$spawned
	spawn redis-p p redis-server --port 7001 --bind 0.0.0.0 --protected-mode no --save '' --appendonly no --dir "$work"
	redis_pid=$spawned
	wait_until 45 process_gone "$early_pid" || because "the client does not end" || return
	[ ! -s "$work/early.log" ] || because "$(tail -1 "$work/early.log")" || return
	"$pronkctl" -c "$conf" stats | grep -qE 'tcp_accepted +counter +1 ' || because "$("$pronkctl" -c "$conf" stats | grep -E 'tcp_accepted|no_socket' | tr '\n' ' ')" || return
	process_end "$redis_pid"
}

n=4000 values=30
[ -z "$quick" ] || { n=1000 values=5; }
up memif
url=http://$addr_p:8080
for master in off on; do
	who='in one process'
	[ $master = off ] || who='master and workers'
	scenario "nginx starts, $who" nginx_start $master
	scenario "nginx, $who: clients from the same ports" same_ports
	scenario "nginx, $who: ab, a connection for each request" each 3 ab_run $n 50 "$url/small"
	scenario "nginx, $who: wrk, Connection: close" each 2 wrk_run 1 "$url/small" -H 'Connection: close'
	scenario "nginx, $who: wrk, keep-alive" wrk_run 1 "$url/small"
	scenario "nginx ends, $who" nginx_end
done
scenario "memcached starts, 4 threads" memcached_start
scenario "memcached: values verified" values
scenario "memcached: memcslap" slap
scenario "memcached ends" memcached_end
scenario "MariaDB starts" mariadb_start
scenario "sysbench point selects, 8 threads, three times" each 3 sysbench_run oltp_point_select $n
scenario "sysbench OLTP, 8 threads" sysbench_run oltp_read_write $((n / 20))
scenario "MariaDB ends" mariadb_end
scenario "nothing fell back to the kernel" unharmed
link_down
up afxdp
scenario "who connects while the program starts stays connected" early
link_down
finish
