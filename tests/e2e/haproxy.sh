#!/usr/bin/env bash
# haproxy.sh [KIND...] - Debian's HAProxy in front of two nginx on the other side of the link, over TAP and memif unless told
# (over memif clients and nginx run under another Pronk service). Master-worker mode, two threads:
#   - ab without one failed request: keep-alive and a connection for each request, through to the servers
#   - a file byte-exact through the proxy
#   - five reloads of the master (it executes itself anew) under load, without one failed request
#   - a server goes away: the health check sees it, the other serves; it comes back
#   - proxying TCP; an orderly end, all memory comes back
. "$(dirname "${BASH_SOURCE[0]}")/apps.sh"

servers_start() {
	mkdir -p "$work/www" "$work/nginx"
	[ -e "$work/www/big" ] || random_file "$work/www/big" "$big_mb"
	echo hello >"$work/www/small"
	server_start 8081 && server_start 8082
}
# server_start PORT: an nginx on side k
server_start() {
	cat >"$work/nginx-$1.conf" <<-END
		daemon off; master_process off; user root; pid $work/nginx/$1.pid; error_log $work/nginx-$1-error.log warn;
		events { worker_connections 2048; }
		http {
			access_log off; sendfile on; keepalive_requests 1000000;
			client_body_temp_path $work/nginx; proxy_temp_path $work/nginx; fastcgi_temp_path $work/nginx;
			uwsgi_temp_path $work/nginx; scgi_temp_path $work/nginx;
			server { listen $addr_k:$1; root $work/www; add_header X-Server $1; }
		}
	END
	spawn "nginx-$1" k nginx -c "$work/nginx-$1.conf" -e "$work/nginx-$1-error.log"
	server_pid=$spawned
	wait_until 10 port_open p "$addr_k" "$1" || because "nginx does not listen on $1: $(tail -1 "$work/nginx-$1-error.log")"
}

proxy_start() {
	cat >"$work/haproxy.cfg" <<-END
		global
			maxconn 1000
			nbthread 2
			user haproxy
			group haproxy
			hard-stop-after 20s
			stats socket $work/haproxy.sock mode 600 level admin expose-fd listeners
		defaults
			timeout connect 5s
			timeout client 30s
			timeout server 30s
			retries 3
			option redispatch
		frontend web
			mode http
			bind $addr_p:8080
			default_backend servers
		backend servers
			mode http
			balance roundrobin
			server a $addr_k:8081 check inter 200ms fall 2 rise 1
			server b $addr_k:8082 check inter 200ms fall 2 rise 1
		listen through
			mode tcp
			bind $addr_p:8090
			server a $addr_k:8081
	END
	p timeout 20 haproxy -W -D -p "$work/haproxy.pid" -f "$work/haproxy.cfg" >"$work/haproxy.log" 2>&1 ||
		because "haproxy: exit status $?: $(tail -1 "$work/haproxy.log")" || return
	wait_until 5 test -s "$work/haproxy.pid" || because "no pid file" || return
	haproxy_pid=$(cat "$work/haproxy.pid")
	pids+=("$haproxy_pid")
	listens 8080 || return
	wait_until 5 servers_are 2 || because "$(states) instead of two servers up"
}
states() {
	"$python" -c 'import socket,sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(b"show stat\n")
text = b"".join(iter(lambda: s.recv(65536), b"")).decode()
for line in text.split("\n"):
    f = line.split(",")
    if f[0] == "servers" and f[1] in "ab": print(f[17], end=" ")' "$work/haproxy.sock"
}
servers_are() { [ "$(states | tr ' ' '\n' | grep -c UP)" = "$1" ]; }

workers() { pgrep -P "$haproxy_pid" | tr '\n' ' '; }
replaced() {
	local pid now
	now=$(workers)
	[ "$(wc -w <<<"$now")" = 1 ] || return
	for pid; do
		[[ " $now " != *" $pid "* ]] || return
	done
}
reload_once() {
	local before
	before=$(workers)
	kill -USR2 "$haproxy_pid"
	wait_until 30 replaced $before || because "reload: the old worker ($before) still runs: $(workers)" || return
	listens 8080
}
server_lost() {
	process_end "$server_pid" 5
	wait_until 5 servers_are 1 || because "the proxy does not see it: $(states)" || return
	ab_run 500 10 "$url/small" || return
	server_start 8082 || return
	wait_until 5 servers_are 2 || because "the proxy does not see it again: $(states)" || return
	ab_run 500 10 "$url/small"
}

proxy_ends() {
	kill -USR1 "$haproxy_pid"
	wait_until 25 process_gone "$haproxy_pid" || because "haproxy does not end"
}

n=10000 big_mb=32
[ -z "$quick" ] || { n=2000 big_mb=8; }
[ $# -gt 0 ] || set -- tap memif
for kind; do
	up "$kind"
	url=http://$addr_p:8080
	memory_note
	scenario "$link: two nginx on the other side" servers_start
	scenario "$link: HAProxy starts, master and worker" proxy_start
	scenario "$link: HAProxy, ab, keep-alive" through tcp_accepted 20 ab_run $n 50 "$url/small" -k
	scenario "$link: HAProxy, ab, a connection for each request" through tcp_connected $((n / 4)) ab_run $((n / 4)) 20 "$url/small"
	scenario "$link: HAProxy, $big_mb MB byte-exact, two at once" fetched "$url/big" "$work/www/big" 2
	scenario "$link: HAProxy proxies TCP, byte-exact" through tcp_connected 2 fetched "http://$addr_p:8090/big" "$work/www/big" 2
	scenario "$link: HAProxy, a server goes and comes" server_lost
	scenario "$link: HAProxy, reloads under load" through tcp_accepted 500 reloads reload_once ab_run 500 20 "$url/small"
	scenario "$link: HAProxy ends" proxy_ends
	scenario "$link: HAProxy, all memory comes back" settled
	link_down
done
finish
