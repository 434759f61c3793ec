#!/usr/bin/env bash
# operate_stats.sh - what an operator sees of a live service:
#   - pronkctl proto beside the kernel's own counters at the other end, after the same traffic: they mirror each other
#   - stats, top and export during a load, and while the program is stopped
#   - the listener for Prometheus, at a port and at a unix socket; a port that is taken is an error at the start
#   - who may reset peaks
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

port=9464
prom() { "$python" "$repo_root/tests/unit/tools/prom.py" "$@"; }
ctl() { timeout 20 "$pronkctl" -c "$conf" "$@"; }

# --- counters ---

# counters FOLDER: both ends' counters as they are
counters() {
	mkdir -p "$1"
	ctl --json proto >"$1/proto.json" && k_raw cat /proc/net/snmp >"$1/snmp"
}
# the last packets may be on their way, and a stack tells what it has counted when it goes to sleep
mirrored() { counters "$work/after" && "$python" "$e2e_dir/operate.py" mirror "$work/before" "$work/after" 2>"$work/mirror.log"; }

mirror() {
	redis_start p 7001 || return
	spawn serve k "$python" "$e2e_dir/tcp.py" serve "$addr_k" 7100
	wait_until 10 grep -q serving "$work/serve.log" || because "no server" || return
	# connections of the start are over, neighbours known
	wait_until 10 stat_is tcp_curr_estab 0 || because "connections are left" || return
	counters "$work/before" || because "no counters" || return
	k "$python" "$e2e_dir/operate.py" traffic "$addr_p" 7001 7999 >"$work/traffic.log" 2>&1 ||
		because "$(tail -1 "$work/traffic.log")" || return
	p "$python" "$e2e_dir/operate.py" connects "$addr_k" 7100 7999 >"$work/connects.log" 2>&1 ||
		because "$(tail -1 "$work/connects.log")" || return
	k ping -q -c 5 -i 0.02 -W 5 "$addr_p" >"$work/ping.log" 2>&1 || because "$(tail -2 "$work/ping.log")" || return
	wait_until 20 mirrored || because "$(tail -1 "$work/mirror.log")"
}

# --- during a load, and stopped ---

load_start() {
	spawn load k redis-benchmark -h "$addr_p" -p 7001 -c 20 -n 100000000 -t get
	load_pid=$spawned
	wait_until 10 eval '[ "$(stat tcp_established)" -ge 20 ]' || because "the load does not begin: $(tail -1 "$work/load.log")"
}

# a machine with much to do may well stand still for an interval
lines_right() {
	ctl --json stats --interval 0.5 --count 3 >"$work/lines" 2>"$work/lines.log" &&
		"$python" "$e2e_dir/operate.py" lines "$work/lines" 2>"$work/lines.log"
}
top_right() {
	ctl --json top --batch 2 --interval 0.5 >"$work/top" 2>"$work/top.log" &&
		"$python" "$e2e_dir/operate.py" top "$work/top" 2>"$work/top.log"
}

rates() {
	load_start || return
	wait_until 20 lines_right || because "$(tail -1 "$work/lines.log")" || return
	ctl stats --interval 0.2s --count 1 tcp_ >"$work/table" || because "exit status $?" || return
	grep -q '^tcp_rx_predicted .* segments$' "$work/table" || because "no such row: $(head -3 "$work/table")" || return
	wait_until 20 top_right || because "$(tail -1 "$work/top.log")"
}

stopped() {
	local rc=0 command
	kill -STOP "$redis_pid"
	for command in "stats" "stats --interval 0.2 --count 2" "proto" "top --batch 2 --interval 0.2" "export" "--json stats"; do
		# shellcheck disable=SC2086
		ctl $command >"$work/stopped.out" 2>"$work/stopped.log" && [ -s "$work/stopped.out" ] || {
			because "$command: $(tail -1 "$work/stopped.log")"
			rc=1
			break
		}
	done
	# nothing was answered meanwhile; the load is still there, and goes on
	process_gone "$load_pid" && because "the load has ended" && rc=1
	kill -CONT "$redis_pid"
	[ $rc = 0 ] || return
	before=$(stat rx_packets)
	wait_until 20 eval '[ "$(stat rx_packets)" -gt $((before + 1000)) ]' || because "the load does not go on"
	app_end "$load_pid"
}

# --- Prometheus ---

scraped() {
	p_raw curl -s --max-time 10 -o "$work/metrics" -w '%{http_code} %{content_type}' "http://127.0.0.1:$port$1"
}

metrics() {
	local got
	got=$(scraped /metrics) || because "curl: exit status $?" || return
	[ "$got" = '200 text/plain; version=0.0.4; charset=utf-8' ] || because "the answer is $got" || return
	prom "$work/metrics" >"$work/prom.out" 2>&1 || because "$(cat "$work/prom.out")" || return
	remark "$(cat "$work/prom.out")"
	[ "$(prom "$work/metrics" --value pronk_tcp_accepted_total stack=0 instance=p device="afpacket:pkp")" = "$(stat tcp_accepted)" ] ||
		because "tcp_accepted is another than pronkctl's" || return
	ctl export | prom - >"$work/prom.out" 2>&1 || because "export: $(cat "$work/prom.out")" || return
	got=$(scraped /nothing)
	[ "${got%% *}" = 404 ] || because "/nothing gives $got"
}

metrics_socket() {
	service_stop
	sed -i "/^metrics_listen/d" "$conf"
	echo "metrics_listen = \"$work/metrics.sock\";" >>"$conf"
	service_start || return
	p_raw curl -s --max-time 10 --unix-socket "$work/metrics.sock" http://p/metrics | prom - >"$work/prom.out" 2>&1 ||
		because "$(cat "$work/prom.out")" || return
	service_stop
	[ ! -e "$work/metrics.sock" ] || because "the socket stays behind"
}

metrics_taken() {
	local squatter rc=0
	: >"$work/squat.log"
	exec ip netns exec "$ns_p" "$python" -u -c "import signal, socket; s = socket.create_server(('127.0.0.1', $port)); print('ready'); signal.pause()" \
		>"$work/squat.log" 2>&1 &
	squatter=$!
	pids+=("$squatter")
	wait_until 10 grep -q ready "$work/squat.log" || because "nobody listens" || return
	sed -i "/^metrics_listen/d" "$conf"
	echo "metrics_listen = \"127.0.0.1:$port\";" >>"$conf"
	p_raw timeout 30 "$pronkd" -c "$conf" >"$work/taken.log" 2>&1 || rc=$?
	process_end "$squatter"
	[ $rc = 1 ] || because "exit status $rc" || return
	grep -q "metrics_listen: cannot listen at 127.0.0.1:$port: Address already in use" "$work/taken.log" ||
		because "another reason: $(tail -1 "$work/taken.log")"
}

# --- reset ---

peaks() {
	local worst
	setpriv --reuid=65534 --regid=65534 --clear-groups timeout 20 "$pronkctl" -s "$work/run/p.sock" reset peaks >"$work/reset.log" 2>&1 &&
		because "anybody may" && return 1
	grep -q 'only root and user 0' "$work/reset.log" || because "another reason: $(cat "$work/reset.log")" || return
	worst=$(stat worst_turn_ns)
	[ "$worst" -gt 0 ] || because "no turn took any time" || return
	ctl reset peaks >"$work/reset.log" 2>&1 || because "$(cat "$work/reset.log")" || return
	grep -q 'peaks and lows begin anew, by user 0' "$work/service.log" || because "the service does not say so" || return
	# the messages that found this service idle took no such turn
	wait_until 10 eval '[ "$(stat buffers_low)" -ge $(($(stat buffers_free) - 64)) ]' ||
		because "buffers_low is $(stat buffers_low) of $(stat buffers_free) free"
}

# more stacks than one: the counters are added up, and every stack sees some packets
up afpacket 'stacks = 2;' 'cores = "0-1";'
scenario "$link: two stacks' counters mirror the kernel's" mirror
link_down

up afpacket "metrics_listen = \"127.0.0.1:$port\";"
scenario "$link: counters mirror the kernel's at the other end" mirror
scenario "$link: rates and top during a load" rates
scenario "$link: all of it while the program is stopped" stopped
scenario "$link: Prometheus reads it over HTTP" metrics
apps_end
scenario "$link: peaks are reset by whom it is up to" peaks
scenario "$link: Prometheus reads it over a unix socket" metrics_socket
scenario "$link: a port that is taken is an error" metrics_taken
link_down
finish
