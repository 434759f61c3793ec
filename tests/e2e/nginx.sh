#!/usr/bin/env bash
# nginx.sh [KIND...] - Debian's nginx as a daemon, a master and two workers of user www-data, over TAP unless told:
#   - wrk and ab without one failed request: keep-alive, and a connection for each request
#   - files of 1 MB and 48 MB by sendfile, byte-exact, several at a time, and parts of them
#   - five reloads while ab and wrk run, without one failed request
#   - a worker is killed; the master makes another
#   - an orderly end; all memory comes back
. "$(dirname "${BASH_SOURCE[0]}")/apps.sh"

nginx_conf() {
	mkdir -p "$work/www" "$work/nginx"
	[ -e "$work/www/big" ] || random_file "$work/www/big" "$big_mb"
	[ -e "$work/www/file" ] || random_file "$work/www/file" 1
	echo hello >"$work/www/small"
	cat >"$work/nginx.conf" <<-END
		daemon on;
		worker_processes 2;
		user www-data;
		pid $work/nginx.pid;
		error_log $work/nginx-error.log notice;
		events { worker_connections 2048; }
		http {
			access_log off;
			sendfile on;
			tcp_nopush on;
			keepalive_requests 1000000;
			client_body_temp_path $work/nginx; proxy_temp_path $work/nginx; fastcgi_temp_path $work/nginx;
			uwsgi_temp_path $work/nginx; scgi_temp_path $work/nginx;
			server { listen 8080; root $work/www; }
		}
	END
}

nginx_start() {
	nginx_conf
	p timeout 20 nginx -c "$work/nginx.conf" -e "$work/nginx-error.log" >"$work/nginx.log" 2>&1 || because "nginx: exit status $?: $(tail -1 "$work/nginx.log")" || return
	wait_until 10 test -s "$work/nginx.pid" || because "no pid file" || return
	nginx_pid=$(cat "$work/nginx.pid")
	pids+=("$nginx_pid")
	listens 8080 || return
	wait_until 5 workers_are 2 || because "$(workers | wc -w) workers instead of 2"
}
workers() { pgrep -P "$nginx_pid" -f 'worker process' | tr '\n' ' '; }
workers_are() { [ "$(workers | wc -w)" = "$1" ]; }

signal() { p timeout 20 nginx -c "$work/nginx.conf" -e "$work/nginx-error.log" -s "$1" >>"$work/nginx.log" 2>&1; }

# old workers end when their last connection has
reload_once() {
	local before
	before=$(workers)
	signal reload || because "nginx -s reload: exit status $?" || return
	wait_until 30 replaced $before || because "old workers ($before) still run: $(workers)"
}
replaced() {
	local pid
	workers_are 2 || return
	for pid; do
		process_gone "$pid" || return
	done
}

worker_killed() {
	local one
	one=$(workers)
	one=${one%% *}
	kill -KILL "$one"
	wait_until 10 replaced "$one" || because "no new worker" || return
	ab_run 1000 20 "$url/small"
}

nginx_ends() {
	signal quit || because "nginx -s quit: exit status $?" || return
	wait_until 20 process_gone "$nginx_pid" || because "nginx does not end" || return
	! grep -E '\[(alert|emerg|crit)\]' "$work/nginx-error.log" | grep -v 'exited on signal 9' >"$work/nginx-bad" ||
		because "nginx says: $(head -1 "$work/nginx-bad")" || return
}

n=20000 s=3 big_mb=48
[ -z "$quick" ] || { n=3000 s=1 big_mb=8; }
[ $# -gt 0 ] || set -- tap
for kind; do
	up "$kind" 'stacks = 2;'
	url=http://$addr_p:8080
	memory_note
	scenario "$link: nginx starts, a master and 2 workers" nginx_start
	scenario "$link: nginx, wrk, keep-alive" through tcp_accepted 20 wrk_run $s "$url/small"
	scenario "$link: nginx, wrk, Connection: close" through tcp_accepted 500 wrk_run $s "$url/small" -H 'Connection: close'
	scenario "$link: nginx, ab, keep-alive" through tcp_accepted 20 ab_run $n 50 "$url/small" -k
	scenario "$link: nginx, ab, a connection for each request" through tcp_accepted $((n / 4)) ab_run $((n / 4)) 50 "$url/small"
	scenario "$link: nginx, files of 1 MB under load" through tcp_accepted 20 ab_run $((n / 50)) 20 "$url/file" -k
	scenario "$link: nginx, 4 copies of $big_mb MB at once, byte-exact" through tcp_accepted 4 fetched "$url/big" "$work/www/big" 4
	scenario "$link: nginx, reloads under connections for each request" reloads reload_once ab_run 500 20 "$url/small"
	scenario "$link: nginx, reloads under wrk, Connection: close" reloads reload_once wrk_run 1 "$url/file" -H 'Connection: close'
	scenario "$link: nginx, a worker is killed" worker_killed
	scenario "$link: nginx ends" nginx_ends
	scenario "$link: nginx, all memory comes back" settled
	link_down
done
finish
