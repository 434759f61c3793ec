#!/usr/bin/env bash
# programs.sh [KIND...] - other unmodified programs, over TAP unless told:
#   - memcached -t 4 under many connections with verified values of up to 900 KB
#   - iperf3: server under Pronk and client under Pronk, both directions each
#   - nginx in one process: 10,000 requests and more without an error, a file byte-exact, with and without sendfile
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

memcached_load() {
	spawn memcached p memcached -u root -l "$addr_p" -p 11211 -t 4 -c 4096
	wait_until 10 k_port_open 11211 || because "memcached does not listen" || return
	k timeout 120 "$python" "$e2e_dir/tcp.py" memcached "$addr_p" 11211 40 "$values" 2>"$work/mc-load.log" ||
		because "$(tail -1 "$work/mc-load.log")" || return
	app_end "$spawned"
}
k_port_open() { k timeout 2 "$python" -c 'import socket,sys; socket.create_connection((sys.argv[1],int(sys.argv[2])),1)' "$addr_p" "$1"; }

# iperf_run SERVER_SIDE [OPTION...]
iperf_run() {
	local side=$1 addr=$addr_p other=k bits
	shift
	[ "$side" = p ] || { addr=$addr_k other=p; }
	spawn iperf-server "$side" iperf3 --forceflush -s -1 -B "$addr"
	wait_until 10 grep -q listening "$work/iperf-server.log" || because "the server does not listen" || return
	"$other" timeout 30 iperf3 -c "$addr" -t "${iperf_s:-3}" --json "$@" >"$work/iperf.json" 2>"$work/iperf.log" ||
		because "iperf3: exit status $?: $(grep -h '"error"' "$work/iperf.json"; tail -1 "$work/iperf.log")" || return
	wait_until 10 process_gone "$spawned" || because "the server does not end" || return
	bits=$("$python" -c 'import json,sys; print("%.2f" % (json.load(open(sys.argv[1]))["end"]["sum_received"]["bits_per_second"]/1e9))' "$work/iperf.json") ||
		because "no result" || return
	[ "$bits" != 0.00 ] || because "nothing got through" || return
	remark "$bits Gbit/s"
}

nginx_start() {
	mkdir -p "$work/www" "$work/nginx"
	head -c 100000 /dev/urandom >"$work/www/file"
	echo hello >"$work/www/small"
	cat >"$work/nginx.conf" <<-END
		daemon off;
		master_process off;
		user root;
		pid $work/nginx/pid;
		error_log $work/nginx-error.log warn;
		events { worker_connections 4096; }
		http {
			access_log off;
			sendfile $1;
			keepalive_requests 1000000;
			client_body_temp_path $work/nginx; proxy_temp_path $work/nginx; fastcgi_temp_path $work/nginx;
			uwsgi_temp_path $work/nginx; scgi_temp_path $work/nginx;
			server { listen $addr_p:8080; root $work/www; }
		}
	END
	spawn nginx p nginx -c "$work/nginx.conf" -e "$work/nginx-error.log"
	nginx_pid=$spawned
	wait_until 10 k_port_open 8080 || because "nginx does not listen: $(tail -1 "$work/nginx-error.log" "$work/nginx.log")"
}

# wrk_run FILE: what wrk did without a single error
wrk_run() {
	local requests
	k timeout 60 wrk -t 2 -c 50 -d "${wrk_s:-3}" "http://$addr_p:8080/$1" >"$work/wrk.log" 2>&1 || because "wrk: exit status $?" || return
	if grep -qE 'Socket errors|Non-2xx' "$work/wrk.log"; then
		because "$(grep -E 'Socket errors|Non-2xx' "$work/wrk.log")"
		return
	fi
	requests=$(awk '/requests in/ { print $1 }' "$work/wrk.log")
	remark "$requests requests of $1"
	[ "$1" != small ] || [ "$requests" -ge 10000 ] || because "only $requests requests"
}

nginx_serves() {
	nginx_start "$1" || return
	wrk_run small || return
	wrk_run file || return
	k timeout 60 "$python" "$e2e_dir/tcp.py" fetch "http://$addr_p:8080/file" "$(sha256sum <"$work/www/file" | cut -d' ' -f1)" 100 \
		2>"$work/fetch.log" || because "$(tail -1 "$work/fetch.log")" || return
	app_end "$nginx_pid"
}

values=100
[ -z "$quick" ] || { iperf_s=1 wrk_s=2 values=20; }
[ $# -gt 0 ] || set -- tap
for kind; do
	up "$kind"
	memory_note
	scenario "$link: memcached -t 4, 40 connections, values verified" memcached_load
	scenario "$link: iperf3 server, receiving" iperf_run p
	scenario "$link: iperf3 server, sending" iperf_run p -R
	scenario "$link: iperf3 client, sending" iperf_run k
	scenario "$link: iperf3 client, receiving" iperf_run k -R
	scenario "$link: iperf3 server, 8 connections" iperf_run p -P 8
	scenario "$link: nginx in one process, sendfile off" nginx_serves off
	scenario "$link: nginx in one process, sendfile on" nginx_serves on
	apps_end
	scenario "$link: all memory comes back" memory_back
	link_down
done
finish
