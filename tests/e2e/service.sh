#!/usr/bin/env bash
# service.sh - the service, the launcher and their messages, over TAP:
#   - `pronk run` returns the program's exit status; 127 and 126 for what cannot be run
#   - LD_PRELOAD alone starts the service (autostart), which ends again after its last client
#   - a program that uses no network under the preload starts nothing and prints nothing
#   - no service (autostart = false): the program runs on the kernel and exactly one line says so; with strict it gets an error
#   - a second pronkd for the same configuration refuses and leaves the first alone
#   - errors in the configuration are named with file:line; so is what the machine does not have, by --check as at the start
#   - somebody who may not start a service is told that there is none
#   - pronk status, pronk run (strict or not) and pronk stop of a service that is stopped; pronk stop of a program that has the stack; it never
#     ends a stranger, and waits for 15 s
#   - why a start fails is on standard error also with log_file
#   - pronkctl's JSON is JSON
#   - pronk run says which options the running service was started without
# With --mode inline a program that has the stack for others stands for the service; what is pronkd's own is left out.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
hosted=1

exit_status() {
	local rc
	p sh -c 'exit 7'
	rc=$?
	[ $rc = 7 ] || because "exit 7 became $rc" || return
	p sh -c 'kill -TERM $$' 2>/dev/null
	rc=$?
	[ $rc = 143 ] || because "SIGTERM became $rc" || return
	p "$work/nothing-here" 2>/dev/null
	rc=$?
	[ $rc = 127 ] || because "a missing program gives $rc" || return
	p "$work" 2>/dev/null
	rc=$?
	[ $rc = 126 ] || because "what is no program gives $rc"
}

status_and_stop() {
	service_start || return
	"$pronk" status -c "$conf" | grep -q "running: pid $service_pid," || because "status: $("$pronk" status -c "$conf")" || return
	"$pronk" stop -c "$conf" >"$work/stop.out" 2>&1 || because "stop: $(cat "$work/stop.out")" || return
	[ "$(cat "$work/stop.out")" = "stopped: pid $service_pid, 0 programs were attached" ] ||
		because "stop says: $(cat "$work/stop.out")" || return
	process_gone "$service_pid" || because "it still runs" || return
	"$pronk" status -c "$conf" >/dev/null && because "status says that it runs" && return 1
	ip -n "$ns_p" link show pkp >/dev/null 2>&1 && because "the TAP is still there" && return 1
	service_pid=
}

# also what a program has left behind to end its connections
service_over() {
	service_stop
	wait_until 20 engine_gone
}

is_stopped() { grep -q '^State:[[:space:]]*T' "/proc/$1/status"; }
not_answering() {
	local said rc line strict loose waited service_was
	service_start || return
	service_was=$service_pid
	kill -STOP "$service_pid"
	wait_until 10 is_stopped "$service_pid"
	said=$(timeout 30 "$pronk" status -c "$conf")
	rc=$?
	# two that pronk run starts, or does not, beside the one of LD_PRELOAD alone
	{ cat "$conf"; echo 'strict = true;'; } >"$work/answer.conf"
	ip netns exec "$ns_p" timeout 30 "$pronk" run -c "$work/answer.conf" -- touch "$work/ran-strict" >"$work/answer-strict" 2>&1 &
	strict=$!
	ip netns exec "$ns_p" timeout 30 "$pronk" run -c "$conf" -- touch "$work/ran" >"$work/answer" 2>&1 &
	loose=$!
	line=$(preloaded timeout 30 "$python" -c 'import socket; s = socket.socket(); s.bind(("0.0.0.0", 7010)); s.listen(1)' 2>&1)
	wait "$strict"
	strict=$?
	wait "$loose"
	loose=$?
	kill -CONT "$service_pid"
	service_over
	waited="pronk: service \"p\" does not answer: waiting for it, 5 s at most (process $service_was is stopped by a signal or a debugger; \`kill -CONT $service_was\` undoes the signal)"
	[ $strict = 125 ] && [ ! -e "$work/ran-strict" ] && [ "$(cat "$work/answer-strict")" = "$waited
pronk: the service at $work/run/p.sock does not answer; not run, because option strict is on" ] ||
		because "strict: $strict, $(cat "$work/answer-strict")" || return
	[ $loose = 0 ] && [ -e "$work/ran" ] && [ "$(cat "$work/answer")" = "$waited
pronk: the service at $work/run/p.sock does not answer; touch runs on the kernel's network stack" ] ||
		because "not strict: $loose, $(cat "$work/answer")" || return
	[ "$line" = "pronk: the service at $work/run/p.sock does not answer; the kernel serves this program's sockets" ] ||
		because "a program says: $line" || return
	[ $rc = 1 ] && [[ $said == "running, but not answering: "*"$work/run/p.sock does not answer (process $service_was is stopped by a signal or a debugger; \`kill -CONT $service_was\` undoes the signal)" ]] || because "status $rc: $said"
}

# the signal waits until the service goes on; that it does is said at once
stop_of_stopped() {
	local stop rc
	service_start || return
	kill -STOP "$service_pid"
	wait_until 10 is_stopped "$service_pid"
	timeout 30 "$pronk" stop -c "$conf" >"$work/stop.out" 2>&1 &
	stop=$!
	wait_until 10 grep -qs "^pronk: the service ends when it goes on, waiting 15 s: process $service_pid is stopped by a signal or a debugger; .kill -CONT $service_pid. " "$work/stop.out" ||
		because "nothing is said: $(cat "$work/stop.out")" || return
	# its SIGTERM is there
	wait_until 10 grep -qE '^(ShdPnd|SigPnd):\s+[0-9a-f]*[4-7c-f][0-9a-f]{3}$' "/proc/$service_pid/status" || because "no signal" || return
	kill -CONT "$service_pid"
	wait "$stop"
	rc=$?
	[ $rc = 0 ] && grep -qx "stopped: pid $service_pid" "$work/stop.out" || because "stop: $rc: $(cat "$work/stop.out")" || return
	wait_until 20 engine_gone || because "somebody still has a stack" || return
	service_pid=
}

# one who neither answers nor heeds SIGTERM takes fifteen seconds, as the man page says; it goes on beside other scenarios
deaf_begin() {
	{ cat "$conf"; echo 'name = "deaf";'; } | grep -v '^name = "p";' >"$work/deaf.conf"
	mkdir -p "$work/run"
	: >"$work/deaf.log"
	"$python" -c '
import signal, socket, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.bind(sys.argv[1])
s.listen(32)
print("listening", flush=True)
time.sleep(100)' "$work/run/deaf.sock" >"$work/deaf.log" &
	deaf_pid=$!
	pids+=("$deaf_pid")
	wait_until 10 grep -q listening "$work/deaf.log" || because "no socket" || return
	(
		start=$(now_us)
		timeout 60 "$pronk" stop -c "$work/deaf.conf" >"$work/deaf.said" 2>&1
		echo "$? $((($(now_us) - start) / 1000))" >"$work/deaf.end"
	) &
	deaf_stop=$!
	ip netns exec "$ns_p" timeout 60 "$pronk" run -c "$work/deaf.conf" -- touch "$work/ran-deaf" >"$work/deaf.run" 2>&1 &
	deaf_run=$!
	pids+=("$deaf_stop" "$deaf_run")
}
deaf_end() {
	local rc ms
	wait "$deaf_run"
	rc=$?
	[ $rc = 0 ] && [ -e "$work/ran-deaf" ] && [ "$(cat "$work/deaf.run")" = "pronk: service \"deaf\" does not answer: waiting for it, 5 s at most
pronk: the service at $work/run/deaf.sock does not answer; touch runs on the kernel's network stack" ] ||
		because "pronk run: $rc: $(cat "$work/deaf.run")" || return
	wait "$deaf_stop"
	kill -KILL "$deaf_pid"
	wait "$deaf_pid" 2>/dev/null
	rm -f "$work/run/deaf.sock"
	read -r rc ms <"$work/deaf.end"
	[ "$rc" = 1 ] && [[ $(tail -1 "$work/deaf.said") == "pronk: the service (pid $deaf_pid) has not ended after 15 s" ]] ||
		because "stop: $rc: $(cat "$work/deaf.said")" || return
	# five of them pass with the question that nobody answers
	[ "$ms" -ge 15000 ] && [ "$ms" -lt 19500 ] || because "it took $ms ms"
}

# what ends a start is told where it was asked for, wherever the log is
failure_on_stderr() {
	local said want file=$work/failed.log
	{ grep -v -e '^device = ' -e '^host_address = ' -e '^log_file = ' "$conf"; echo 'device = "afpacket:pk-none0";'; } >"$work/failed.conf"
	want="$work/failed.conf:$(wc -l <"$work/failed.conf"): device: there is no interface pk-none0 "
	echo "log_file = \"$file\";" >>"$work/failed.conf"
	said=$(p_raw timeout 20 "$pronkd" -c "$work/failed.conf" 2>&1) && because "it starts" && return 1
	[[ $said == "pronkd: $want"* ]] && [ "$(wc -l <<<"$said")" = 1 ] || because "it says: $said" || return
	grep -qF "$want" "$file" || because "the log has: $(cat "$file")" || return
	said=$(p_raw timeout 20 "$pronkd" --daemonize -c "$work/failed.conf" 2>&1)
	[[ $said == "pronkd: $want"* ]] && [ "$(wc -l <<<"$said")" = 1 ] || because "in the background it says: $said"
}

# the process that called listen(2) is gone, its child has the socket: nothing may be signalled, and that is a failure
stop_of_nobody() {
	local said rc child
	{ cat "$conf"; echo 'name = "gone";'; } | grep -v '^name = "p";' >"$work/gone.conf"
	mkdir -p "$work/run"
	"$python" -c '
import os, socket, sys, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.bind(sys.argv[1])
s.listen(8)
pid = os.fork()
if not pid:
    os.close(1)
    time.sleep(60)
    os._exit(0)
print(pid)' "$work/run/gone.sock" >"$work/gone.pid" || because "no socket" || return
	child=$(cat "$work/gone.pid")
	pids+=("$child")
	said=$(timeout 30 "$pronk" stop -c "$work/gone.conf" 2>&1)
	rc=$?
	kill "$child"
	rm -f "$work/run/gone.sock"
	[ $rc = 1 ] && [[ $said == *"is gone, but something still answers there: not stopped" ]] || because "stop: $rc: $said"
}

# inline_server PORT: a redis-server with the stack in it, or a client of the one that has it; its id is in $redis_pid
inline_server() {
	: >"$work/inline$1.log"
	exec_in "$ns_p" "$work/inline.conf" redis-server --port "$1" --bind "$addr_p" --protected-mode no --save '' --dir "$work" >"$work/inline$1.log" 2>&1 &
	redis_pid=$!
	pids+=("$redis_pid")
	wait_until 20 eval "grep -q 'Ready to accept connections' '$work/inline$1.log' || process_gone $redis_pid"
	! process_gone "$redis_pid" || because "redis-server ended: $(tail -1 "$work/inline$1.log")"
}

# stop_inline OTHERS: the program with the stack ends, and its keeper, when there are others; these live on
stop_inline() {
	local said rc owner others=0
	{ grep -v '^mode = ' "$conf"; echo 'mode = "inline";'; } >"$work/inline.conf"
	inline_server 7011 || return
	owner=$redis_pid
	if [ "$1" = 1 ]; then
		inline_server 7012 || return
		others=1
	fi
	"$pronk" status -c "$work/inline.conf" | grep -q "^running: pid $owner," || because "no stack: $(tail -1 "$work/inline7011.log")" || return
	said=$("$pronk" stop -c "$work/inline.conf" 2>&1)
	rc=$?
	[ $rc = 0 ] || because "stop: $rc: $said" || return
	[[ $said == "the stack lives in redis-server (pid $owner): it is ended"*"stopped: pid $owner, $((others + 1)) program"*" attached" ]] ||
		because "stop says: $said" || return
	process_gone "$owner" || because "the program still runs" || return
	[ "$others" = 0 ] || ! process_gone "$redis_pid" || because "the other program has ended: $(tail -1 "$work/inline7012.log")" || return
	process_end "$redis_pid"
	wait_until 10 engine_gone || because "somebody still holds the stack's lock"
}

status_pid() { "$pronk" status -c "$conf" | sed -n 's/^running: pid \([0-9]*\),.*/\1/p'; }
exec_preloaded() { exec ip netns exec "$ns_p" env PRONK_CONFIG="$conf" LD_PRELOAD="$libpronk" "$@"; }
exec_launched() { exec_in "$ns_p" "$conf" "$@"; }
preloaded() { (exec_preloaded "$@"); }

autostart() {
	local pid
	exec_preloaded redis-server --port 7001 --bind "$addr_p" --protected-mode no --save '' --dir "$work" >"$work/redis-p.log" 2>&1 &
	redis_pid=$!
	pids+=("$redis_pid")
	wait_until 15 eval "[ -n \"\$(status_pid)\" ]" || because "no service: $(tail -1 "$work/redis-p.log")" || return
	pid=$(status_pid)
	pids+=("$pid")
	wait_until 10 redis_cli p 7001 ping || because "redis-server does not answer" || return
	redis_load p 7001 -c 20 -n 10000 -t set || return
	app_end "$redis_pid"
	wait_until 10 process_gone "$pid" || because "the service does not end after its last client (linger_s = 1)"
}

no_network() {
	local text
	text=$(preloaded ls / 2>&1 >/dev/null)
	[ -z "$text" ] || because "ls says: $text" || return
	[ -z "$(status_pid)" ] || because "ls has started the service"
}

# kernel_program PREFIX...: a redis-server that PREFIX starts must be served by the kernel, and one line must say so
kernel_program() {
	local lines
	: >"$work/fallback.log"
	"$@" redis-server --port 7005 --bind 0.0.0.0 --protected-mode no --save '' --dir "$work" >"$work/fallback.log" 2>&1 &
	pids+=($!)
	wait_until 10 p_raw redis-cli -h 127.0.0.1 -p 7005 ping || because "it does not run: $(tail -1 "$work/fallback.log")" || return
	p_raw redis-cli -h 127.0.0.1 -p 7005 set a b >/dev/null
	p_raw redis-cli -h 127.0.0.1 -p 7005 shutdown nosave >/dev/null 2>&1
	wait_until 10 process_gone $! || because "it does not end" || return
	lines=$(grep -ac pronk "$work/fallback.log")
	remark "$(grep -am1 pronk "$work/fallback.log")"
	[ "$lines" = 1 ] || because "$lines lines speak of Pronk, not 1: $(grep -a pronk "$work/fallback.log" | head -3)"
}

strict_refuses() {
	local rc
	ip netns exec "$ns_p" "$pronk" run -c "$work/strict.conf" -- true 2>"$work/strict.log"
	rc=$?
	# inline, it is the program that may start a stack
	[ $rc = 125 ] || [ "$mode" = inline ] || because "pronk run: exit status $rc" || return
	ip netns exec "$ns_p" env PRONK_CONFIG="$work/strict.conf" LD_PRELOAD="$libpronk" "$python" -c \
		'import socket; socket.socket().bind(("198.18.51.2", 7009))' 2>"$work/strict.log" &&
		because "a socket was served by the kernel" && return 1
	grep -q Error "$work/strict.log"
}

second_service() {
	service_start || return
	p_raw timeout 20 "$pronkd" -c "$conf" >"$work/second.log" 2>&1
	[ $? = 1 ] || because "the second service ended with $?: $(tail -1 "$work/second.log")" || return
	remark "$(tail -1 "$work/second.log" | cut -c1-90)"
	process_gone "$service_pid" && because "the first has ended" && return 1
	link_works >/dev/null || because "the first does not answer"
}

# config_error LINE TEXT EXPECTED: TEXT in line LINE of a configuration is refused with file:line and EXPECTED
config_error() {
	local line=$1 text=$2 want=$3 got
	awk -v n="$line" -v t="$text" 'BEGIN { for (i = 1; i < n; i++) print "# line " i; print t }' >"$work/bad.conf"
	for program in "$pronkd -c $work/bad.conf" "$pronk run -c $work/bad.conf -- true"; do
		got=$(p_raw timeout 10 $program 2>&1) && because "$program accepts it" && return 1
		[[ $got == *"$work/bad.conf:$line: "*"$want"* ]] || because "it says: $got" || return
	done
}

# not_here KEY VALUE EXPECTED: --check, the start and pronk run say with file:line that the machine has no such thing
not_here() {
	local said program run="$pronk run -c $work/here.conf -- true"
	{ grep -v -e "^$1 = " -e '^host_address = ' -e '^log_file = ' "$conf"; echo "$1 = $2;"; } >"$work/here.conf"
	# inline, nothing is started before a program wants a socket
	[ "$mode" = dedicated ] || run="${run%true}$python $work/listen.py"
	for program in "$pronkd --check -c $work/here.conf" "$pronkd -c $work/here.conf" "$run"; do
		said=$(p_raw timeout 20 $program 2>&1)
		[[ $said == *"$work/here.conf:$(wc -l <"$work/here.conf"): $1: $3"* ]] || because "$program says: $said" || return
	done
	p_raw "$pronkd" --check -c "$work/here.conf" >/dev/null 2>&1 && because "--check accepts it" && return 1
	p_raw "$pronkd" --check -c "$conf" >"$work/check.out" 2>&1 || because "--check refuses a good one: $(cat "$work/check.out")"
}

no_right() {
	local said
	if [ "$mode" = inline ]; then
		said=$(p_raw setpriv --reuid=65534 --regid=65534 --clear-groups "$pronk" run -c "$conf" -- "$python" "$work/listen.py" 2>&1) ||
			because "exit status $?: $said" || return
		[ "$(grep -c '^pronk: .*; the kernel serves this program.s sockets$' <<<"$said")" = 1 ] && [ "$(wc -l <<<"$said")" = 1 ] || because "it says: $said"
		return
	fi
	said=$(p_raw setpriv --reuid=65534 --regid=65534 --clear-groups "$pronk" run -c "$conf" -- true 2>&1) || because "exit status $?: $said" || return
	[[ $said == "pronk: no service runs, and starting one needs root: "*" runs on the kernel's network stack" ]] || because "it says: $said"
}

json() {
	local what
	for what in stats sockets config; do
		"$pronkctl" -c "$conf" --json $what | "$python" -m json.tool >/dev/null 2>&1 || because "$what is not JSON" || return
		"$pronkctl" -c "$conf" $what >"$work/text.out" || because "$what: exit status $?" || return
		[ -s "$work/text.out" ] || because "$what prints nothing" || return
	done
}

# options that the running service was not started with are named, once each; the same configuration says nothing
other_options() {
	local said
	{ cat "$conf"; echo 'send_buffer = 131072;'; } >"$work/other.conf"
	said=$(ip netns exec "$ns_p" "$pronk" run -c "$work/other.conf" -- true 2>&1)
	[ "$(grep -c 'running service keeps' <<<"$said")" = 1 ] && grep -q 'send_buffer = 131072)' <<<"$said" || because "it says: $said" || return
	said=$(p true 2>&1)
	[ -z "$said" ] || because "the same configuration: $said" || return
	remark "$(ip netns exec "$ns_p" "$pronk" run -c "$work/other.conf" -- true 2>&1 | cut -c1-100)"
}

link_up tap 'linger_s = 1;'
echo 'import socket; s = socket.socket(); s.bind(("0.0.0.0", 7010)); s.listen(1)' >"$work/listen.py"
chmod 644 "$work/listen.py" "$conf"
cp "$conf" "$work/p-auto.conf"
dedicated_only "there is no pronkd; the scenarios on programs that have the stack are for this" "pronk status and pronk stop" status_and_stop
scenario "one who neither answers nor heeds a signal: begin" deaf_begin
scenario "pronk status and pronk run of a service that is stopped" not_answering
scenario "pronk stop of a service that is stopped" stop_of_stopped
scenario "pronk stop ends nobody who is not the service" stop_of_nobody
scenario "pronk stop where a program has the stack" stop_inline 0
scenario "pronk stop where it has another program as client" stop_inline 1
scenario "one who neither answers nor heeds a signal: pronk run, pronk stop" deaf_end
scenario "a start that fails is told on standard error, too" failure_on_stderr
scenario "a user who may not start a service" no_right
scenario "a program without network starts nothing" no_network
scenario "autostart by LD_PRELOAD alone" autostart
scenario "the errors of a configuration: unknown key" config_error 3 'stack = 2;' 'stack'
scenario "the errors of a configuration: wrong type" config_error 5 'stacks = "two";' 'stacks'
scenario "the errors of a configuration: out of range" config_error 2 'stacks = 99;' '1 to 16'
scenario "the errors of a configuration: no such interface" not_here device '"afpacket:pk-none0"' 'there is no interface pk-none0 '
dedicated_only "the program's own threads run the stack, on the cores that it has" "the errors of a configuration: no such core" not_here cores '"1023"' 'there is no core 1023 '
dedicated_only "a second program is a client of the first" "a second service refuses" second_service
[ "$mode" = dedicated ] || scenario "a program has the stack for others" service_start
scenario "exit status of the program" exit_status
scenario "pronkctl: text and JSON" json
scenario "pronk run names options that the service does not have" other_options
service_over
echo 'autostart = false;' >>"$conf"
scenario "no service: pronk run falls back to the kernel" kernel_program exec_launched
scenario "no service: LD_PRELOAD falls back to the kernel" kernel_program exec_preloaded
{ cat "$conf"; echo 'strict = true;'; } >"$work/strict.conf"
scenario "no service: strict refuses" strict_refuses
link_down
finish
