#!/usr/bin/env bash
# loopback.sh - option loopback = pronk: programs of one machine talk inside the service, with one stack and with two:
#   - a redis-server at 127.0.0.1: a client under Pronk is accelerated, one without Pronk reaches the kernel's half, both at once
#   - the same at Pronk's own address, which no other program could reach before
#   - another loopback address, a port without a listener, a listener of the kernel's only
#   - a load without an error; a large file byte-exact; nothing of all that on the port; all memory comes back
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# ask WHO ADDR: the server's answer to a question about itself
ask() { "$1" timeout 10 redis-cli -h "$2" -p 7300 info clients | grep -c '^connected_clients:'; }

# grows NAME WHAT...: the command succeeds and the statistic rises by it
grows() {
	local name=$1 was
	was=$(stat "$name")
	shift
	[ "$("$@")" = 1 ] || because "$*: no answer" || return
	[ "$(stat "$name")" -gt "$was" ] || because "$*: $name stays at $was"
}
stays() {
	local name=$1 was
	was=$(stat "$name")
	shift
	[ "$("$@")" = 1 ] || because "$*: no answer" || return
	stat_is "$name" "$was" || because "$*: $name went from $was to $(stat "$name")"
}

server_ready() {
	spawn redis p redis-server --port 7300 --bind "$addr_p" 127.0.0.1 127.0.0.2 --protected-mode no --save '' --appendonly no \
		--dir "$work"
	redis_pid=$spawned
	wait_until 10 eval "grep -q 'Ready to accept connections' '$work/redis.log' || process_gone $redis_pid"
	! process_gone "$redis_pid" || because "redis-server ended: $(tail -1 "$work/redis.log")"
}

# both at once: the kernel's client stays connected while Pronk's come and go
both_sides() {
	local was
	ip netns exec "$ns_p" timeout 30 redis-cli -h 127.0.0.1 -p 7300 -r 30 -i 0.05 ping >"$work/kernel.log" 2>&1 &
	pids+=($!)
	local client=$!
	was=$(stat tcp_accepted)
	for _ in 1 2 3 4 5; do
		grows tcp_accepted ask p 127.0.0.1 || return
	done
	[ "$(stat tcp_accepted)" = $((was + 5)) ] || because "$(($(stat tcp_accepted) - was)) connections accepted, not 5" || return
	wait "$client" || because "the kernel's client: $(tail -1 "$work/kernel.log")" || return
	[ "$(grep -c PONG "$work/kernel.log")" = 30 ] || because "the kernel's client got $(grep -c PONG "$work/kernel.log") answers of 30"
}

other_addresses() {
	grows tcp_accepted ask p 127.0.0.2 || return
	# nobody listens there: the kernel says so
	! p timeout 10 redis-cli -h 127.0.0.3 -p 7300 ping >"$work/refused.log" 2>&1 || because "127.0.0.3 answers" || return
	grep -q refused "$work/refused.log" || because "127.0.0.3: $(cat "$work/refused.log")"
}

# a server that only the kernel has is reached as ever
kernel_only() {
	# no function of ours in the background: $! would be a shell, and the server its child
	ip netns exec "$ns_p" "$python" -m http.server --bind 127.0.0.1 7301 --directory "$work/www" >"$work/http-kernel.log" 2>&1 &
	apps+=($!)
	wait_until 10 eval "p_raw curl -sf -o /dev/null http://127.0.0.1:7301/small" || because "the kernel's server does not start" || return
	p curl -sf -m 10 -o "$work/got" http://127.0.0.1:7301/small && cmp -s "$work/got" "$work/www/small" || because "no answer"
}

requests=$([ -n "$quick" ] && echo 20000 || echo 100000)
load_local() {
	p timeout 120 redis-benchmark -h "$1" -p 7300 --csv -c 50 -n "$requests" -t set,get \
		>"$work/load.out" 2>"$work/load.log" || because "redis-benchmark: $(tail -c 200 "$work/load.log")" || return
	! grep -qiE 'error|reset|refused|closed' "$work/load.log" "$work/load.out" || because "$(grep -ihE -m1 'error|reset' "$work"/load.*)" || return
	remark "$(sed -n 2p "$work/load.out" | cut -d, -f2 | tr -d '"') requests/s"
}

large_file() {
	local sum
	spawn http p "$python" -m http.server --bind 127.0.0.1 7302 --directory "$work/www"
	wait_until 10 eval "p curl -sf -m 5 -o /dev/null http://127.0.0.1:7302/small" || because "the server does not start" || return
	sum=$(sha256sum <"$work/www/large")
	for who in p p_raw p; do
		[ "$("$who" curl -sf -m 60 http://127.0.0.1:7302/large | sha256sum)" = "$sum" ] || because "$who: the file differs" || return
	done
}

# the port carried nothing of it: some ARP and what the kernel says on its own
port_is_quiet() {
	local now
	now=$(stat tx_packets)
	[ $((now - port_was)) -le 20 ] || because "$((now - port_was)) frames were sent"
}

mkdir -p "$work/www"
head -c 100 /dev/urandom >"$work/www/small"
head -c 50000000 /dev/urandom >"$work/www/large"
[ $# -gt 0 ] || set -- 1 2
for count; do
	if [ "$mode" = inline ] && [ "$count" != 1 ]; then
		skipped "$count: local programs, with $count stacks" "with mode = inline there is one"
		continue
	fi
	up tap 'loopback = "pronk";' "stacks = $count;" "$([ "$count" = 1 ] || echo 'cores = "0-1";')"
	memory_note
	port_was=$(stat tx_packets)
	scenario "$count: redis-server listens at its own and two loopback addresses" server_ready
	scenario "$count: clients with and without Pronk at once" both_sides
	scenario "$count: Pronk's own address" grows tcp_accepted ask p "$addr_p"
	scenario "$count: other loopback addresses" other_addresses
	scenario "$count: a client without Pronk stays the kernel's" stays tcp_accepted ask p_raw 127.0.0.1
	scenario "$count: a server without Pronk stays the kernel's" kernel_only
	scenario "$count: redis-benchmark at 127.0.0.1" load_local 127.0.0.1
	scenario "$count: redis-benchmark at Pronk's own address" load_local "$addr_p"
	scenario "$count: a large file, byte-exact" large_file
	scenario "$count: nothing of that went through the port" port_is_quiet
	apps_end
	scenario "$count: all memory comes back" memory_back 30
	link_down
done
finish
