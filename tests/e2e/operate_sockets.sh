#!/usr/bin/env bash
# operate_sockets.sh - pronkctl looks into a live service: sockets with filters, arp, routes, ports, nic, interrupts, instances, dump. Each as
# a table and as JSON that fits its schema. Then the same into a service that is stopped, as in a debugger: pronkd, and a program
# with the stack in it. Both modes, whatever --mode says.
export PKE_MODE=dedicated
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
schema=$repo_root/tests/schema.py

# ctl COMMAND...: its output is in $work/ctl.out, its messages in $work/ctl.err; false when it fails or takes too long
ctl() { timeout 20 "$pronkctl" -c "$conf" "$@" >"$work/ctl.out" 2>"$work/ctl.err"; }
# said PATTERN: the output has such a line
said() { grep -qE -- "$1" "$work/ctl.out" || because "no line \"$1\" in: $(head -c 300 "$work/ctl.out" | tr '\n' '|') $(head -c 200 "$work/ctl.err")"; }
unsaid() { ! grep -qE -- "$1" "$work/ctl.out" || because "a line \"$1\": $(grep -E -m1 -- "$1" "$work/ctl.out")"; }
# shows COMMAND... : as a table, and as JSON that fits
shows() {
	local name=$1
	ctl --json "$@" || because "--json $*: $(head -c 200 "$work/ctl.err")" || return
	"$python" "$schema" "$name" "$work/ctl.out" 2>"$work/schema.log" || because "--json $*: $(head -1 "$work/schema.log")" || return
	ctl "$@" || because "$*: $(head -c 200 "$work/ctl.err")"
}
refused() {
	local text=$1
	shift
	! ctl "$@" || because "$*: was taken" || return
	grep -qF -- "$text" "$work/ctl.err" || because "$*: says $(head -1 "$work/ctl.err")"
}

client_open() {
	# stays connected until it is ended
	spawn client k "$python" -c '
import socket, sys, time
s = socket.create_connection((sys.argv[1], 6379))
s.sendall(b"PING\r\n")
assert s.recv(16) == b"+PONG\r\n"
print("connected", s.getsockname()[1], flush=True)
time.sleep(300)' "$addr_p"
	wait_until 10 grep -q connected "$work/client.log" || because "no connection: $(tail -1 "$work/client.log")" || return
	port_k=$(sed -n 's/^connected //p' "$work/client.log")
}

sockets_shown() {
	shows sockets && said "^ *$redis_pid redis-server .* LISTEN +$addr_p:6379 " &&
		said "^ *$redis_pid redis-server .* ESTABLISHED +$addr_p:6379 +$addr_k:$port_k " || return
	ctl sockets --wide && said 'options:\(.*keepalive.*\)' && said 'timer:\(keepalive,[0-9]+min,0\)' && said 'mss:[1-9]' || return
	"$pronkctl" -c "$conf" --json sockets --summary >"$work/ctl.out" && "$python" "$schema" sockets-summary "$work/ctl.out" ||
		because "summary: $(cat "$work/ctl.out")"
}
filters_hold() {
	ctl sockets state established sport = 6379 dport "$port_k" && said "ESTABLISHED" && unsaid LISTEN || return
	ctl sockets "sport=6379 and dport!=$port_k and state connected" && unsaid 6379 || return
	ctl sockets "dst $addr_k/32" "src $addr_p/24" && said ESTABLISHED && unsaid LISTEN || return
	ctl sockets --listening && said LISTEN && unsaid ESTABLISHED || return
	ctl sockets --udp && unsaid ':6379' || return
	ctl sockets "program redis-*" stack 0 pid "$redis_pid" && said ESTABLISHED && said LISTEN || return
	ctl sockets program nosuch && unsaid ':6379'
}
bad_filters() {
	refused 'sockets: unknown filter "colour"' sockets colour red &&
		refused 'sport: "65536" is no number from 0 to 65535' sockets sport 65536 &&
		refused 'state: unknown "open"' sockets state open &&
		refused 'dst: prefix length "33"' sockets dst 10.0.0.0/33 &&
		refused 'there is no "or"' sockets sport 1 or dport 2 &&
		refused 'pid: a process id is missing' sockets pid
}
kernel_shown() {
	spawn local p "$python" -c 'import socket, time; s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(); print("up", flush=True); time.sleep(300)'
	wait_until 10 grep -q up "$work/local.log" || because "$(tail -1 "$work/local.log")" || return
	ctl sockets --kernel && said "^ *$spawned python3 .*IPv4 +stream +bound to a loopback address" && unsaid ':6379 ' || return
	ctl sockets --kernel pid 1 && unsaid python3 && app_end "$spawned"
}
arp_shown() {
	# the table is published once a second
	wait_until 5 eval '"$pronkctl" -c "$conf" arp | grep -qE "$addr_k .*(known|asked-again)"'
	shows arp && said "^ +0 $addr_k +([0-9a-f]{2}:){5}[0-9a-f]{2} +(known|asked-again)"
}
net_shown() {
	shows routes && said "^${addr_p%.*}.0/24 .* pronk " && said '^127.0.0.0/8 .* kernel ' || return
	shows ports && said "^tcp +6379 $addr_p +LISTEN .*redis-server\($redis_pid\)" && said 'TIME_WAIT: [0-9]+'
}
nic_shown() {
	shows nic && said '^driver +net_tap' && said '^mac +([0-9a-f]{2}:){5}' && said '^link_up +yes' && said 'rx_good_packets +[1-9]'
}
interrupts_shown() {
	shows interrupts && said 'sleeps by +descriptor' && said '/dev/net/tun' && said 'wakes_port +[1-9]' || return
	# told once a second
	ctl set stack_spin_us 61 && wait_until 5 eval '"$pronkctl" -c "$conf" interrupts | grep -q "spins before  *61 us"' ||
		because "the new budget is not shown: $(head -c 200 "$work/ctl.err")"
}
repeated() { ctl --interval 0.1 --count 3 sockets --summary && [ "$(grep -c ^Total "$work/ctl.out")" = 3 ] || because "not three times"; }
# found PID STATE MODE: whose service it is, by name, by the service's process and by a client's
found() {
	shows instances && said "^p +$1 .* $2 +$3 .*$work/run/p.sock" || return
	timeout 20 "$pronkctl" -p "$1" sockets >"$work/ctl.out" 2>"$work/ctl.err" && said ":6379 " || return
	timeout 20 "$pronkctl" -p "$redis_pid" sockets >"$work/ctl.out" 2>"$work/ctl.err" && said ":6379 " || return
	timeout 20 "$pronkctl" -c "$conf" -i p sockets >"$work/ctl.out" 2>"$work/ctl.err" && said ":6379 " || return
	timeout 20 "$pronkctl" --all-instances --json sockets 2>"$work/ctl.err" | "$python" -c '
import json, sys
assert any(i["instance"] == "p" and i["pid"] == int(sys.argv[1]) and i["result"]["sockets"] for i in json.load(sys.stdin))' "$1" ||
		because "--all-instances: $(tail -1 "$work/ctl.err")"
}
not_found() {
	refused 'does not use, a service of Pronk' -p $$ sockets && refused 'no service named "nosuch"' -i nosuch sockets
}

# Another user sees what the socket gives, and no process's memory.
as_nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
seen_by_others() {
	as_nobody timeout 20 "$pronkctl" -c "$conf" instances >"$work/ctl.out" 2>"$work/ctl.err" && said "^p +$service_pid .* running" || return
	as_nobody timeout 20 "$pronkctl" -c "$conf" sockets >"$work/ctl.out" 2>"$work/ctl.err" && said ":6379 "
}
hidden_from_others() {
	! as_nobody timeout 20 "$pronkctl" -c "$conf" sockets >"$work/ctl.out" 2>"$work/ctl.err" || because "another user reads its memory" || return
	grep -q "the memory of process $service_pid cannot be opened (Permission denied)" "$work/ctl.err" || because "says $(head -1 "$work/ctl.err")"
}

# Two services on this machine, at both ends of a memif.
two_services() {
	redis_start p 6379 && client_open || return
	wait_until 5 eval '"$pronkctl" -c "$conf" arp | grep -qE "$addr_k .* 61504\$"' || because "no near neighbour: $("$pronkctl" -c "$conf" arp | tail -1)" || return
	shows nic && said '^memif_peer +connected' && said '^memif_role +client' || return
	ctl -i k sockets && said "ESTABLISHED +$addr_k:$port_k +$addr_p:6379 " || return
	ctl -p "$peer_pid" sockets state listening && unsaid 6379 || return
	shows instances && said "^k +$peer_pid " && said "^p +$service_pid "
}

# dumped FILE SECONDS: an archive is written, opens, and holds no environment
dumped() {
	rm -f "$1"
	PKE_SECRET=hunter2hunter2 timeout "$2" "$pronkctl" -c "$conf" dump "$1" >"$work/ctl.out" 2>"$work/ctl.err" || because "$(tail -1 "$work/ctl.err")" || return
	rm -rf "$work/dump" && mkdir "$work/dump" && tar -xzf "$1" -C "$work/dump" --strip-components=1 || because "tar does not open it" || return
	[ -s "$work/dump/versions" ] && [ -s "$work/dump/machine/proc/meminfo" ] && [ -s "$work/dump/commands/sockets.txt" ] ||
		because "files are missing: $(ls "$work/dump")" || return
	"$python" "$schema" sockets "$work/dump/commands/sockets.json" 2>"$work/schema.log" || because "$(head -1 "$work/schema.log")" || return
	! grep -rqE 'hunter2hunter2|PATH=' "$work/dump" || because "holds an environment: $(grep -rlE 'hunter2hunter2|PATH=' "$work/dump" | head -1)" || return
	grep -qx "State:.*" "$work/dump/processes/proc/$redis_pid/status" || because "nothing on redis"
}
dump_whole() {
	dumped "$work/one.tar.gz" 60 || return
	"$python" "$schema" nic "$work/dump/commands/nic.json" || because "no nic" || return
	grep -q '"device"\|device' "$work/dump/commands/config.txt" || because "no configuration" || return
	refused 'exists already' dump "$work/one.tar.gz"
}

# stopped PID FUNCTION...: with that process stopped
stopped() {
	local pid=$1 rc=0
	shift
	kill -STOP "$pid"
	wait_until 5 grep -q '^State:[[:space:]]*T' "/proc/$pid/status"
	"$@" || rc=1
	kill -CONT "$pid"
	return $rc
}
# seen_stopped PID MODE: everything that needs no word of its
seen_stopped() {
	local start=${EPOCHREALTIME/./} command
	for command in sockets arp routes ports interrupts; do
		shows "$command" || return
		grep -q "pid $1, .* is stopped" "$work/ctl.err" || because "$command does not say so: $(head -1 "$work/ctl.err")" || return
	done
	ctl --all stats && said '^turns ' || return
	remark "$(((${EPOCHREALTIME/./} - start) / 1000)) ms for 11 commands"
	refused 'nic: only the service can tell' nic && refused 'config: only the service can tell' config || return
	ctl sockets && said ":6379 +$addr_k:$port_k " || return
	found "$1" stopped "$2" || return
	dumped "$work/stopped.tar.gz" 60 && grep -q '^commands/nic.json: ' "$work/dump/missing" || because "the dump does not name what it lacks"
}
goes_on() { [ "$(redis_cli p 6379 ping)" = PONG ] || because "no answer after it"; }

up tap
scenario "redis-server starts" redis_start p 6379 --tcp-keepalive 7000
scenario "a client connects" client_open
scenario "sockets: table, JSON, details, summary" sockets_shown
scenario "sockets: filters hold" filters_hold
scenario "sockets: what is wrong with a filter" bad_filters
scenario "sockets --kernel: with the reason" kernel_shown
scenario "arp: the peer's address" arp_shown
scenario "routes and ports" net_shown
scenario "nic: driver, link and statistics" nic_shown
scenario "interrupts: what the stack sleeps on" interrupts_shown
scenario "--interval and --count" repeated
scenario "instances: by name, pid, client's pid, all" found "$service_pid" running dedicated
scenario "instances: neither pid nor name" not_found
scenario "dump: everything, once" dump_whole
scenario "pronkd is stopped: all that lies in memory is shown" stopped "$service_pid" seen_stopped "$service_pid" dedicated
scenario "another user sees the service" seen_by_others
scenario "another user sees nothing of one that is stopped" stopped "$service_pid" hidden_from_others
scenario "pronkd goes on" goes_on
link_down

up memif
scenario "two services: by name, by pid" two_services
link_down

mode=inline
up tap
scenario "inline: redis-server starts" redis_start p 6379 --tcp-keepalive 7000
scenario "inline: a client connects" client_open
scenario "inline: sockets" sockets_shown
scenario "inline: nic and interrupts" shows nic
scenario "inline: interrupts" shows interrupts
scenario "inline: instances" found "$redis_pid" running inline
scenario "inline: the program is stopped: all that lies in memory is shown" stopped "$redis_pid" seen_stopped "$redis_pid" inline
scenario "inline: the program goes on" goes_on
link_down
finish
