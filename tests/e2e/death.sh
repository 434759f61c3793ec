#!/usr/bin/env bash
# death.sh [KIND...] - what dies must not take others along. For every kind of port:
#   - kill -9 of the application: its peer sees the end within 1 s, pronkctl shows nothing of it, all memory comes back
#   - the same in the middle of a load
#   - a stopped application (SIGSTOP) can be looked at, and goes on
#   - kill -9 of the service: threads of the application that sleep in recv, poll, select, epoll_wait and accept get errors within
#     1 s and the application lives; so does redis-server, without eating a core
#   - the service starts again after it
# With --mode inline the service is a program that has the stack for the others; then also:
#   - kill -9 of a program with a stack of its own, and what becomes of its client; the next program has one again
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

tcp() { echo "$python" "$e2e_dir/tcp.py"; }

# ended_after FILE START_US: milliseconds until the end that a `tcp.py watch` saw
ended_after() { awk -v s="$2" '/^ended/ { printf "%d", ($3 - s) / 1000 }' "$1"; }

nothing_of() { ! "$pronkctl" -c "$conf" sockets | awk -v pid="$1" '$1 == pid { found = 1 } END { exit !found }'; }

application_killed() {
	local start took watcher
	redis_start p 7001 || return
	spawn watch k $(tcp) watch "$addr_p" 7001
	watcher=$spawned
	wait_until 10 grep -q open "$work/watch.log" || because "no connection" || return
	start=$(now_us)
	app_kill "$redis_pid"
	wait_until 10 process_gone "$watcher" || because "the peer does not see the end" || return
	took=$(ended_after "$work/watch.log" "$start")
	[ -n "$took" ] && [ "$took" -lt 1000 ] || because "the peer saw the end after ${took:-no} ms: $(tail -1 "$work/watch.log")" || return
	remark "the peer saw $(awk '/^ended/ { print $2 }' "$work/watch.log") after $took ms"
	wait_until 5 nothing_of "$redis_pid" || because "pronkctl sockets still shows it" || return
	memory_back
}

application_killed_under_load() {
	local loader
	redis_start p 7001 || return
	spawn load k redis-benchmark -h "$addr_p" -p 7001 -c 50 -d 20000 -n 100000000 -t set,get -l -q
	loader=$spawned
	wait_until 10 eval "[ \"\$(stat tcp_established)\" -ge 50 ]" || because "no load" || return
	sleep 0.5
	app_kill "$redis_pid"
	wait_until 10 process_gone "$loader" || kill "$loader"
	wait_until 5 nothing_of "$redis_pid" || because "pronkctl sockets still shows it" || return
	process_end "$loader"
	memory_back || return
	# the same port at once again
	redis_start p 7001 || return
	redis_load p 7001 -c 50 -n 10000 -t set || return
	app_end "$redis_pid"
}

client_killed_under_load() {
	local loader
	redis_start k 7001 || return
	spawn load p redis-benchmark -h "$addr_k" -p 7001 -c 50 -d 20000 -n 100000000 -t set,get -l -q
	loader=$spawned
	wait_until 10 eval "[ \"\$(stat tcp_established)\" -ge 50 ]" || because "no load" || return
	sleep 0.5
	app_kill "$loader"
	wait_until 5 nothing_of "$loader" || because "pronkctl sockets still shows it" || return
	memory_back || return
	app_end "$redis_pid"
}

application_stopped() {
	redis_start p 7001 || return
	kill -STOP "$redis_pid"
	timeout 5 "$pronkctl" -c "$conf" sockets >"$work/sockets.out" 2>&1 || because "pronkctl sockets: exit status $?"
	awk -v pid="$redis_pid" '$1 == pid && $5 == "LISTEN" { found = 1 } END { exit !found }' "$work/sockets.out" ||
		because "pronkctl sockets does not show its listener"
	timeout 5 "$pronkctl" -c "$conf" stats >/dev/null || because "pronkctl stats: exit status $?"
	kill -CONT "$redis_pid"
	[ -z "$reason" ] || return
	redis_cli p 7001 ping | grep -qx PONG || because "it does not go on" || return
	app_end "$redis_pid"
}

service_killed() {
	local start waiter poller name result at ticks idle
	redis_start k 7001 || return
	redis_start p 7003 || return
	rm -f "$work/gate"
	mkfifo "$work/gate"
	exec 9<>"$work/gate"
	spawn waits p $(tcp) waits "$addr_k" 7001 <"$work/gate" 9>&-
	waiter=$spawned
	wait_until 20 eval "grep -q ready '$work/waits.log' || process_gone $waiter"
	grep -q ready "$work/waits.log" || because "$(tail -1 "$work/waits.log")" || return
	# servers that wait in poll, and in select, for wildcard listeners: the kernel's half is left to them
	spawn polls p python3 -c 'import select, socket
s = [socket.create_server(("", 7008)), socket.create_server(("", 7009))]
p = select.poll()
p.register(s[0])
print("ready", flush=True)
p.poll()
select.select([s[1]], [], [])
print("done", flush=True)'
	poller=$spawned
	wait_until 20 grep -q ready "$work/polls.log" || because "the server that polls does not start" || return
	start=$(now_us)
	app_kill "$service_pid"
	wait_until 25 eval "grep -q alive '$work/waits.log' || process_gone $waiter"
	exec 9>&-
	while read -r name result at; do
		[ -n "$at" ] || continue
		remark "$name: $result after $(((at - start) / 1000)) ms"
		[ $((at - start)) -lt 1000000 ] || because "$name: $result after $(((at - start) / 1000)) ms"
		[[ $result == E[A-Z]* && $result != EOF ]] || because "$name: $result, not an error"
	done < <(grep -E '^(recv|poll|select|epoll|accept) ' "$work/waits.log")
	grep -q alive "$work/waits.log" || because "it did not survive: $(tail -1 "$work/waits.log")"
	! process_gone "$redis_pid" || because "redis-server did not survive: $(tail -1 "$work/redis-p.log")"
	[ -z "$reason" ] || return
	ticks=$(process_ticks "$redis_pid")
	idle=$(process_ticks "$poller")
	sleep 2
	ticks=$(($(process_ticks "$redis_pid") - ticks))
	idle=$(($(process_ticks "$poller") - idle))
	[ "$idle" -lt $(($(getconf CLK_TCK) / 10)) ] || because "a server in poll eats $((idle * 50 / $(getconf CLK_TCK))) % of a core" || return
	# it hears the kernel's half in poll, and then in select
	ip netns exec "$ns_p" timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.1/7008' || because "nobody hears at 127.0.0.1" || return
	ip netns exec "$ns_p" timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.1/7009' || because "nobody hears at 127.0.0.1 in select" || return
	wait_until 5 grep -q done "$work/polls.log" || because "the server that polls does not go on" || return
	remark "redis-server afterwards: $((ticks * 50 / $(getconf CLK_TCK))) % of a core"
	[ "$ticks" -lt "$(getconf CLK_TCK)" ] || because "redis-server eats $((ticks * 50 / $(getconf CLK_TCK))) % of a core"
}

service_again() {
	apps_end
	service_pid=
	if [ "$link" = memif ]; then
		# the other end of the link has lost its peer, and waits for the next
		process_gone "$peer_pid" && because "the other service died, too" && return 1
	fi
	service_start || return
	[ "$link" = memif ] || wait_until 5 link_works || because "no answer to ping" || return
	redis_start p 7001 || return
	wait_until 10 redis_cli p 7001 ping || because "redis-server does not answer" || return
	redis_load p 7001 -c 50 -n 10000 -t set,get || return
	app_end "$redis_pid"
}

# a server with a stack of its own, and one that is its client: both end, each in its way, and the port serves the next one
own_stack_killed() {
	local owner client
	redis_start p 7001 || return
	owner=$redis_pid
	mv "$work/redis-p.log" "$work/redis-owner.log"
	redis_start p 7003 || return
	client=$redis_pid
	"$pronk" status -c "$conf" | grep -q "^running: pid $owner,.* 2 clients" || because "status: $("$pronk" status -c "$conf")" || return
	redis_load p 7003 -c 20 -n 5000 -t set,get || return
	app_kill "$owner"
	wait_until 5 engine_gone || because "somebody still has its stack" || return
	! process_gone "$client" || because "its client did not survive: $(tail -1 "$work/redis-p.log")" || return
	app_end "$client" || return
	redis_start p 7001 || return
	"$pronk" status -c "$conf" | grep -q "^running: pid $redis_pid," || because "no stack again: $(tail -1 "$work/redis-p.log")" || return
	wait_until 10 redis_cli p 7001 ping || because "redis-server does not answer" || return
	redis_load p 7001 -c 50 -n 10000 -t set,get || return
	app_end "$redis_pid"
}

[ $# -gt 0 ] || set -- tap afpacket afxdp memif
for kind; do
	hosted=1
	up "$kind"
	memory_note
	scenario "$link: kill -9 of the application" application_killed
	apps_end
	scenario "$link: kill -9 of a server under load" application_killed_under_load
	apps_end
	scenario "$link: kill -9 of a client under load" client_killed_under_load
	apps_end
	scenario "$link: a stopped application" application_stopped
	apps_end
	scenario "$link: kill -9 of the service" service_killed
	scenario "$link: the service starts again" service_again
	if [ "$mode" = inline ]; then
		service_stop
		hosted=
		scenario "$link: the stack of the service ends" engine_ends
		scenario "$link: kill -9 of a program with a stack of its own" own_stack_killed
	fi
	link_down
done
finish
