#!/usr/bin/env bash
# net_tools.sh [KIND...] - load tools and transfer programs, over TAP unless told; each on both sides of the link:
#   - memcached -t 4: memcslap's and memccat's binary protocol; text protocol from Python is in programs.sh
#   - iperf3: -R, -P 4, --bidir with both sides in turn under Pronk
#   - sockperf: ping-pong and throughput over TCP, nothing lost
#   - curl and wget under Pronk: a large file, eight at a time, a part, an upload
#   - rsync's daemon, socat, nc, openssl s_server and s_client: contents compared by SHA-256
. "$(dirname "${BASH_SOURCE[0]}")/apps.sh"

# server NAME SIDE PORT PROGRAM...: in the background; waits until it listens, unless PORT is 0
server() {
	local name=$1 side=$2 port=$3
	shift 3
	spawn "$name" "$side" "$@"
	server_pid=$spawned
	[ "$port" != 0 ] || return 0
	if [ "$side" = p ]; then
		listens "$port"
	else
		wait_until 15 port_open p "$addr_k" "$port" || because "nothing listens on port $port: $(tail -1 "$work/$name.log")"
	fi
}

memcached_binary() {
	local user=nobody
	# it changes its user before it opens its port, and another user may not have a stack (doc/limits.md)
	! several_stacks || user=root
	server memcached p 11211 memcached -u $user -l "$addr_p" -p 11211 -t 4 -c 1024 || return
	k timeout 60 memcslap --servers="$addr_p:11211" --concurrency=8 --execute-number=$((n / 8)) --initial-load=1000 --test=set --binary >"$work/slap.out" 2>&1 ||
		because "memcslap: exit status $?: $(tail -1 "$work/slap.out")" || return
	k timeout 60 memcslap --servers="$addr_p:11211" --concurrency=8 --execute-number=$((n / 8)) --initial-load=1000 --test=get >"$work/slap.out" 2>&1 ||
		because "memcslap: exit status $?: $(tail -1 "$work/slap.out")" || return
	head -c 900000 /dev/urandom >"$work/value"
	(cd "$work" && k timeout 20 memccp --servers="$addr_p:11211" --binary value) >"$work/slap.out" 2>&1 || because "memccp: $(tail -1 "$work/slap.out")" || return
	k timeout 20 memccat --servers="$addr_p:11211" --binary --file="$work/value.back" value >"$work/slap.out" 2>&1 || because "memccat: $(tail -1 "$work/slap.out")" || return
	[ "$(sum "$work/value.back")" = "$(sum "$work/value")" ] || because "what came back differs" || return
	app_end "$server_pid"
}

# iperf SERVER_SIDE [OPTION...]
iperf() {
	local side=$1 addr=$addr_p other=k
	shift
	[ "$side" = p ] || { addr=$addr_k other=p; }
	spawn iperf "$side" iperf3 --forceflush -s -1 -B "$addr"
	wait_until 10 grep -q listening "$work/iperf.log" || because "the server does not listen" || return
	"$other" timeout 30 iperf3 -c "$addr" -t "$s" --json "$@" >"$work/iperf.json" 2>"$work/iperf-client.log" ||
		because "iperf3: exit status $?: $(grep -h '"error"' "$work/iperf.json"; tail -1 "$work/iperf-client.log")" || return
	wait_until 10 process_gone "$spawned" || because "the server does not end" || return
	remark "$("$python" - "$work/iperf.json" <<-'END'
		import json, sys
		end = json.load(open(sys.argv[1]))["end"]
		for key in ("sum_received", "sum_received_bidir_reverse"):
		    if key in end:
		        rate = end[key]["bits_per_second"] / 1e9
		        print("%.2f Gbit/s" % rate, end=" ")
		        assert rate > 0.001
	END
	)" || because "nothing got through"
}

sockperf_port=11110
# sockperf SIDE TEST: the server on that side
sockperf_run() {
	local side=$1 test=$2 addr=$addr_p other=k
	shift 2
	[ "$side" = p ] || { addr=$addr_k other=p; }
	# a port of its own each time: the last connection may linger in TIME_WAIT
	sockperf_port=$((sockperf_port + 1))
	server sockperf "$side" 0 sockperf server --tcp -i "$addr" -p $sockperf_port || return
	wait_until 10 grep -q 'to block on\|to poll' "$work/sockperf.log" || because "no server: $(tail -1 "$work/sockperf.log")" || return
	"$other" timeout 30 sockperf "$test" --tcp -i "$addr" -p $sockperf_port -t "$s" "$@" >"$work/sockperf.out" 2>&1 || because "sockperf: exit status $?: $(tail -1 "$work/sockperf.out")" || return
	if [ "$test" = ping-pong ]; then
		grep -q 'dropped messages = 0; # duplicated messages = 0; # out-of-order messages = 0' "$work/sockperf.out" || because "$(grep -a 'dropped messages' "$work/sockperf.out")" || return
		remark "$(sed -n 's/.*Latency is \([0-9.]*\).*/\1 us/p' "$work/sockperf.out" | head -1)"
	else
		grep -q 'Message Rate' "$work/sockperf.out" || because "$(tail -1 "$work/sockperf.out")" || return
		remark "$(sed -n 's/.*Summary: Message Rate is \([0-9]*\).*/\1 messages\/s/p' "$work/sockperf.out")"
	fi
	kill -INT "$server_pid"
	wait_until 10 process_gone "$server_pid" || because "the server does not end"
}

# --- curl and wget under Pronk, a web server of the kernel's ---

web_start() {
	mkdir -p "$work/www/in" "$work/nginx"
	[ -e "$work/www/big" ] || random_file "$work/www/big" "$big_mb"
	cat >"$work/nginx.conf" <<-END
		daemon off; master_process off; user root; pid $work/nginx/pid; error_log $work/nginx-error.log warn;
		events { worker_connections 512; }
		http {
			access_log off; sendfile on; client_max_body_size 1g;
			client_body_temp_path $work/nginx; proxy_temp_path $work/nginx; fastcgi_temp_path $work/nginx;
			uwsgi_temp_path $work/nginx; scgi_temp_path $work/nginx;
			server { listen $addr_k:8081; root $work/www; location /in/ { dav_methods PUT; } }
		}
	END
	server nginx k 8081 nginx -c "$work/nginx.conf" -e "$work/nginx-error.log"
}
curl_large() {
	local i got=() want bad=0
	want=$(sum "$work/www/big")
	for i in 1 2 3 4 5 6 7 8; do
		p timeout 60 curl -sS --fail -o "$work/got.$i" "http://$addr_k:8081/big" 2>>"$work/curl.log" &
		got+=($!)
	done
	for i in "${got[@]}"; do
		wait "$i" || bad=$((bad + 1))
	done
	for i in 1 2 3 4 5 6 7 8; do
		[ "$(sum "$work/got.$i")" = "$want" ] || bad=$((bad + 1))
	done
	rm -f "$work"/got.*
	[ $bad = 0 ] || because "$bad of 8 are wrong: $(tail -1 "$work/curl.log")" || return
	# many at a time from one process: its own event loop
	p timeout 60 curl -sS --fail --parallel --parallel-max 8 -o "$work/got.#1" "http://$addr_k:8081/big?[1-8]" 2>>"$work/curl.log" ||
		because "curl --parallel: $(tail -1 "$work/curl.log")" || return
	for i in 1 2 3 4 5 6 7 8; do
		[ "$(sum "$work/got.$i")" = "$want" ] || because "copy $i of --parallel differs" || return
	done
	rm -f "$work"/got.*
}
curl_parts() {
	p timeout 20 curl -sS --fail -r 1000-1000999 -o "$work/part" "http://$addr_k:8081/big" 2>"$work/curl.log" || because "curl -r: $(tail -1 "$work/curl.log")" || return
	cmp -s "$work/part" <(tail -c +1001 "$work/www/big" | head -c 1000000) || because "the part differs" || return
	p timeout 60 curl -sS --fail -T "$work/www/big" "http://$addr_k:8081/in/up" 2>"$work/curl.log" || because "curl -T: $(tail -1 "$work/curl.log")" || return
	[ "$(sum "$work/www/in/up")" = "$(sum "$work/www/big")" ] || because "what was sent up differs"
}
wget_large() {
	head -c 1000000 "$work/www/big" >"$work/got"
	# goes on where an earlier attempt ended
	p timeout 60 wget -q -c -O "$work/got" "http://$addr_k:8081/big" >"$work/wget.log" 2>&1 || because "wget: exit status $?: $(tail -1 "$work/wget.log")" || return
	[ "$(sum "$work/got")" = "$(sum "$work/www/big")" ] || because "the file differs"
}

rsync_daemon() {
	local i
	mkdir -p "$work/tree/a/b" "$work/up"
	for i in $(seq 300); do head -c $((i * 97)) /dev/urandom >"$work/tree/a/b/$i"; done
	[ -e "$work/tree/big" ] || cp "$work/www/big" "$work/tree/big"
	cat >"$work/rsyncd.conf" <<-END
		use chroot = no
		uid = root
		gid = root
		[down]
		path = $work/tree
		[up]
		path = $work/up
		read only = no
	END
	server rsync p 873 rsync --daemon --no-detach --config="$work/rsyncd.conf" --address="$addr_p" || return
	k timeout 60 rsync -a "rsync://$addr_p/down/" "$work/down/" >"$work/rsync-client.log" 2>&1 || because "rsync down: $(tail -1 "$work/rsync-client.log")" || return
	diff -r "$work/tree" "$work/down" >/dev/null || because "what came down differs" || return
	k timeout 60 rsync -a "$work/tree/" "rsync://$addr_p/up/" >"$work/rsync-client.log" 2>&1 || because "rsync up: $(tail -1 "$work/rsync-client.log")" || return
	diff -r "$work/tree" "$work/up" >/dev/null || because "what went up differs" || return
	app_end "$server_pid"
	rm -rf "$work/tree" "$work/down" "$work/up"
}

# socat for each connection a process that executes a program
socat_fork() {
	local out
	server socat p 7100 socat "TCP-LISTEN:7100,bind=$addr_p,reuseaddr,fork" 'SYSTEM:sha256sum' || return
	out=$(k timeout 30 socat -t 20 - "TCP:$addr_p:7100" <"$work/www/big" 2>"$work/socat-client.log") || because "socat: $(tail -1 "$work/socat-client.log")" || return
	[ "${out%% *}" = "$(sum "$work/www/big")" ] || because "the sum is $out" || return
	app_end "$server_pid"
}
nc_transfer() {
	spawn nc p nc -N -l "$addr_p" 7101
	wait_until 10 eval '[ "$link" = kernel ] || "$pronkctl" -c "$conf" sockets | grep -q 7101' || because "nc does not listen" || return
	[ "$link" != kernel ] || sleep 0.3
	k timeout 30 nc -N "$addr_p" 7101 <"$work/www/big" >/dev/null 2>"$work/nc-client.log" || because "nc: $(tail -1 "$work/nc-client.log")" || return
	wait_until 10 process_gone "$spawned" || because "nc does not end" || return
	[ "$(sum "$work/nc.log")" = "$(sum "$work/www/big")" ] || because "what came differs"
	rm -f "$work/nc.log"
}
tls() {
	[ -e "$work/tls.pem" ] || openssl req -x509 -newkey rsa:2048 -nodes -keyout "$work/tls.pem" -out "$work/tls.crt" -days 2 -subj /CN=pronk >/dev/null 2>&1 ||
		because "no certificate" || return
	cp "$work/www/big" "$work/tls.big"
	spawn tls p env -C "$work" openssl s_server -accept "$addr_p:7102" -key tls.pem -cert tls.crt -HTTP -quiet
	server_pid=$spawned
	listens 7102 || return
	k timeout 60 curl -sS -k --http0.9 --fail -o "$work/got" "https://$addr_p:7102/tls.big" 2>"$work/curl.log" || because "curl: $(tail -1 "$work/curl.log")" || return
	[ "$(sum "$work/got")" = "$(sum "$work/www/big")" ] || because "the file differs" || return
	app_end "$server_pid"
	# the client under Pronk
	spawn tls k env -C "$work" openssl s_server -accept "$addr_k:7103" -key tls.pem -cert tls.crt -HTTP -quiet
	server_pid=$spawned
	wait_until 10 port_open p "$addr_k" 7103 || because "no server" || return
	{ printf 'GET /tls.big HTTP/1.0\r\n\r\n' && sleep 1; } | p timeout 60 openssl s_client -quiet -connect "$addr_k:7103" >"$work/got" 2>"$work/tls-client.log"
	[ "$(tail -c "$(wc -c <"$work/tls.big")" "$work/got" | sha256sum | cut -d' ' -f1)" = "$(sum "$work/tls.big")" ] || because "the file that s_client got differs" || return
	app_end "$server_pid"
}

n=40000 s=2 big_mb=24
[ -z "$quick" ] || { n=8000 s=1 big_mb=8; }
[ $# -gt 0 ] || set -- tap
for kind; do
	up "$kind"
	memory_note
	scenario "$link: memcached, binary protocol" through tcp_accepted 8 memcached_binary
	scenario "$link: iperf3 server, -P 4 -R" through tcp_accepted 5 iperf p -P 4 -R
	scenario "$link: iperf3 server, both ways at once" through tcp_accepted 3 iperf p --bidir
	scenario "$link: iperf3 client, both ways at once, -P 2" through tcp_connected 5 iperf k --bidir -P 2
	scenario "$link: sockperf server, ping-pong" through tcp_accepted 1 sockperf_run p ping-pong
	scenario "$link: sockperf server, throughput" through tcp_accepted 1 sockperf_run p throughput -m 1400
	scenario "$link: sockperf client, ping-pong" through tcp_connected 1 sockperf_run k ping-pong
	scenario "$link: nginx on the other side" web_start
	web_pid=$server_pid
	scenario "$link: curl, $big_mb MB, eight at a time" through tcp_connected 9 curl_large
	scenario "$link: curl, a part, an upload" through tcp_connected 2 curl_parts
	scenario "$link: wget goes on with a file" through tcp_connected 1 wget_large
	app_end "$web_pid"
	scenario "$link: rsync daemon, down and up" through tcp_accepted 2 rsync_daemon
	scenario "$link: socat, a process for each connection" through tcp_accepted 1 socat_fork
	scenario "$link: nc, $big_mb MB" through tcp_accepted 1 nc_transfer
	scenario "$link: openssl s_server and s_client" through tcp_accepted 1 tls
	scenario "$link: all memory comes back" settled
	link_down
done
finish
