#!/usr/bin/env bash
# adjust.sh - what pronkctl changes and measures in a service that runs:
#   - inject: redis-server stays right while frames are lost, doubled and reordered in both directions (a TAP, and a memif, whose
#     frames have several buffers), the faults are counted, and none are made any more when it is off; a delay is felt
#   - latency: a delay between the port and the stack, and a reader that is stopped, are found in the stages that they belong to;
#     the figures are read while the reader is stopped
#   - set: what each option changes (those of TCP: tests/wire/test_adjust.c)
#   - only root and the service's user change anything; a wrong word changes nothing
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ctl() { timeout 20 "$pronkctl" -c "$conf" "$@"; }

# json EXPRESSION: of what pronkctl --json WORD... has printed to $work/json.out; d is the value
json() { "$python" -c 'import json, sys; d = json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$work/json.out" "$1"; }

# stage NAME FIGURE: of pronkctl latency, all stacks
stage() {
	ctl --json latency >"$work/json.out" || return
	json "[s['total']['$2'] for s in d['stages'] if s['name'] == '$1'][0]"
}
# stage_has NAME COUNT
stage_has() { [ "$(stage "$1" count)" -ge "$2" ]; }

# --- inject ---

value_survives() {
	head -c "$1" /dev/urandom >"$work/big"
	limit_s=60 redis_cli p 7001 -x set big <"$work/big" >"$work/reply" 2>&1
	grep -qx OK "$work/reply" || because "set: $(head -c 200 "$work/reply")" || return
	limit_s=60 redis_cli p 7001 get big >"$work/back" || because "get failed" || return
	[ "$(head -c "$1" "$work/back" | sha256sum)" = "$(sha256sum <"$work/big")" ] || because "what came back differs"
}

# A request, and a sleep after it: then every counter of the stack has been told.
sleeps_again() {
	local sleeps
	sleeps=$(stat sleeps)
	redis_cli p 7001 ping >/dev/null
	[ "$(stat sleeps)" -gt "$sleeps" ]
}

injected() { echo $(($(stat "inject_rx_$1") + $(stat "inject_tx_$1"))); }

# faults BYTES
faults() {
	local kind
	ctl inject rx loss 2% dup 1% reorder 2% tx loss 2% dup 1% reorder 2% seed 42 >"$work/ctl.out" 2>&1 || because "$(cat "$work/ctl.out")" || return
	[ "$(ctl inject | head -1)" = "inject rx loss 2% dup 1% reorder 2% tx loss 2% dup 1% reorder 2% seed 42" ] ||
		because "inject shows: $(ctl inject | head -1)" || return
	value_survives "$1" || return
	redis_load p 7001 -c 10 -n 2000 -t set,get || return
	for kind in rx_lost tx_lost rx_duplicated tx_duplicated rx_reordered tx_reordered; do
		wait_until 5 eval "[ \"\$(stat inject_$kind)\" -gt 0 ]" || because "inject_$kind is 0" || return
	done
	remark "$(injected lost) lost, $(injected duplicated) doubled, $(injected reordered) reordered"
}

faults_off() {
	local lost
	ctl inject off || because "inject off failed" || return
	[ "$(ctl inject | head -1)" = "inject off" ] || because "inject shows: $(ctl inject | head -1)" || return
	# what it has counted is told when it goes to sleep
	wait_until 20 sleeps_again || because "the stack does not sleep" || return
	lost=$(injected lost)
	redis_load p 7001 -c 10 -n 2000 -t set,get || return
	[ "$(injected lost)" = "$lost" ] || because "$(($(injected lost) - lost)) frames were lost after inject off"
}

wrong_words() {
	local before
	ctl --json config >"$work/config.before"
	while IFS='|' read -r words want; do
		# shellcheck disable=SC2086
		ctl $words >"$work/ctl.out" 2>&1 && because "$words was taken" && return 1
		[ "$(cat "$work/ctl.out")" = "pronkctl: $want" ] || because "$words: $(cat "$work/ctl.out")" || return
	done <<-END
		inject rx|inject: rx: a fault is missing (allowed: loss, delay, jitter, dup, reorder, corrupt)
		inject rx loss 1% tx los 1%|inject: tx: unknown fault "los" (allowed: loss, delay, jitter, dup, reorder, corrupt)
		inject rx loss 101%|inject: rx loss: "101%" is no share (allowed: 0% to 100%, with up to four digits behind the point)
		inject rx loss 0.00001%|inject: rx loss: "0.00001%" is no share (allowed: 0% to 100%, with up to four digits behind the point)
		inject rx delay 11s|inject: rx delay: "11s" is no time (allowed: 0us to 10s, as 200us, 5ms or 1s)
		inject rx delay 5ms jitter 6ms|inject: rx jitter: more than delay (allowed: 0us to 5000us)
		inject rx loss 1% loss 2%|inject: rx loss: given twice
		inject seed 4|inject: a direction is missing (allowed: rx, tx)
		inject rx loss 1% seed x|inject: seed: "x" is no number (allowed: 0 to 18446744073709551615)
		inject of|inject: unknown word "of" (allowed: off alone, or rx and tx with their faults, and seed)
		latency maybe|latency: one word is expected (allowed: on, off, reset)
		set stacks 2|set: stacks: cannot change while the service runs (allowed: options with "can change" in pronkctl config)
		set rto_min_ms 0|set: rto_min_ms: 0 is out of range (allowed: 1 to 1000 ms)
	END
	ctl --json config | cmp -s - "$work/config.before" || because "the configuration has changed" || return
	[ "$(ctl inject | head -1)" = "inject off" ] || because "inject shows: $(ctl inject | head -1)"
}

# The build may lie where other users cannot look; lib.sh has made a copy then.
others_may_look_only() {
	local words
	for words in "inject rx loss 100%" "set log_level debug" "latency on"; do
		# shellcheck disable=SC2086
		setpriv --reuid=65534 --regid=65534 --clear-groups "$pronkctl" -s "$work/run/p.sock" $words >"$work/ctl.out" 2>&1 &&
			because "another user may: $words" && return 1
		# the socket itself may be closed to others; if not, the service says why
		grep -qE 'only root and user 0, who runs the service, may do that|Permission denied' "$work/ctl.out" ||
			because "$words: $(cat "$work/ctl.out")" || return
	done
	[ "$(ctl inject | head -1)" = "inject off" ] || because "inject shows: $(ctl inject | head -1)"
}

# --- latency ---

delay_is_seen() {
	ctl latency on && ctl latency reset || because "latency on failed" || return
	redis_cli p 7001 ping >/dev/null || because "no answer" || return
	wait_until 10 stage_has rx 1 || because "nothing was counted" || return
	ctl inject rx delay 100ms || because "inject failed" || return
	ctl latency reset
	redis_cli p 7001 ping >/dev/null || because "no answer" || return
	wait_until 10 stage_has rx 1 || because "nothing was counted with a delay" || return
	ctl inject off
	[ "$(stage rx_stack p50_ns)" -ge 95000000 ] || because "rx_stack: $(stage rx_stack p50_ns) ns with a delay of 100 ms" || return
	remark "rx_stack $(($(stage rx_stack p50_ns) / 1000)) us"
}

# Nobody is connected, and redis-server sleeps: but for its own timer, ten times a second.
redis_sleeps() { stat_is tcp_established 0 && grep -q '^State:[[:space:]]*S' "/proc/$redis_pid/status"; }

# stop_reader: false when it was not asleep just then, or with a reason
stop_reader() {
	local client
	wait_until 20 redis_sleeps || because "redis-server does not sleep" || return
	ctl latency reset
	kill -STOP "$redis_pid"
	redis_cli p 7001 ping >"$work/stopped.out" 2>&1 &
	client=$!
	pids+=("$client")
	# read while the reader is stopped
	wait_until 10 eval "ctl latency | grep -q 'rx_stack *[1-9]'" || because "no request was published" || { kill -CONT "$redis_pid"; return 1; }
	sleep 0.3 # this is how long it stands still, at least
	kill -CONT "$redis_pid"
	wait "$client" && grep -qx PONG "$work/stopped.out" || because "no answer after SIGCONT" || return
	wait_until 10 stage_has rx 1 || because "nothing was counted" || return
	[ "$(stage rx max_ns)" -ge 300000000 ] || because "rx: $(stage rx max_ns) ns, after 300 ms" || return
	[ "$(stage rx_wake max_ns)" -ge 300000000 ]
}
stopped_reader_is_seen() {
	ctl set app_spin_us 0 || because "set app_spin_us failed" || return
	# it may have been awake for its timer
	stop_reader || [ -n "$reason" ] || stop_reader || [ -n "$reason" ] || stop_reader ||
		because "rx_wake: $(stage rx_wake max_ns) ns, after 300 ms" || return
	[ -z "$reason" ] || return
	[ "$(stage rx max_ns)" -ge "$(stage rx_wake max_ns)" ] || because "rx: $(stage rx max_ns) ns, less than rx_wake's" || return
	[ "$(stage rx_read max_ns)" -lt "$(stage rx_wake max_ns)" ] || because "rx_read has it, too: $(stage rx_read max_ns) ns" || return
	remark "rx_wake $(($(stage rx_wake max_ns) / 1000)) us"
}

shown_in_every_way() {
	redis_load p 7001 -c 5 -n 500 -t get || return
	ctl latency --plot | grep -q '^tx: written -> given to the port ([1-9][0-9]*)$' || because "no bars" || return
	ctl latency --svg "$work/plot.svg" && "$python" -c 'import sys, xml.dom.minidom as m; sys.exit(not m.parse(sys.argv[1]).getElementsByTagName("polyline"))' \
		"$work/plot.svg" || because "no plot" || return
	# what was before the interval is not in it
	[ "$(ctl --json latency --interval 0.2 --count 1 | "$python" -c 'import json, sys; print(json.load(sys.stdin)["stages"][0]["total"]["count"])')" = 0 ] ||
		because "an interval without traffic has values" || return
	ctl latency off || because "latency off failed" || return
	ctl latency reset
	redis_cli p 7001 ping >/dev/null || because "no answer" || return
	[ "$(stage rx count)$(stage tx count)" = 00 ] || because "times are taken after latency off"
}

# --- set ---

# what a moment without traffic shows
polls_without_sleep() {
	local polls sleeps
	sleeps=$(stat sleeps) polls=$(stat rx_polls)
	sleep 0.05
	[ $(($(stat rx_polls) - polls)) -ge 200 ] && [ "$(stat sleeps)" = "$sleeps" ]
}
# Who has given up spinning sleeps whatever the options say (spin.h): then there is nothing to be seen.
too_busy() {
	awk -v most=$((2 * $(nproc))) '{ exit !($1 > most) }' /proc/loadavg && remark "not seen at load $(cut -d ' ' -f 1 /proc/loadavg)"
}
# spins_are STACK_US APP_US: what the stack and programs go by
spins_are() {
	ctl --json interrupts >"$work/json.out"
	[ "$(json "{(s['stack_spin_us'], s['app_spin_us']) for s in d['stacks']}")" = "{($1, $2)}" ] || because "interrupts: $(json "d['stacks']")"
}
stack_spin() {
	ctl set stack_spin_us 10000000 && spins_are 10000000 0 || because "set failed" || return
	redis_cli p 7001 ping >/dev/null
	wait_until 15 polls_without_sleep || too_busy || because "the stack sleeps with stack_spin_us = 10 s" || return
	ctl set stack_spin_us 0 || because "set failed" || return
	wait_until 30 sleeps_again || because "the stack does not sleep with stack_spin_us = 0"
}

# How many wake-ups five requests need.
wakeups() {
	local before
	before=$(stat wakeups_sent)
	redis_cli p 7001 -r 5 -i 0.02 ping >/dev/null || return
	# of the last one, too
	wait_until 5 sleeps_again
	echo $(($(stat wakeups_sent) - before))
}
app_spin() {
	ctl set app_spin_us 0 || because "set failed" || return
	[ "$(wakeups)" -ge 1 ] || because "nobody was woken with app_spin_us = 0" || return
	ctl set app_spin_us 10000000 && spins_are 0 10000000 || because "set failed" || return
	wait_until 15 eval '[ "$(wakeups)" = 0 ]' || too_busy || because "the program sleeps with app_spin_us = 10 s" || return
	ctl set profile balanced || because "set profile failed" || return
	ctl --json config >"$work/json.out"
	[ "$(json "d['stack_spin_us']['value'], d['app_spin_us']['value'], d['app_spin_us']['origin'], d['profile']['origin']")" = \
		"(50, 20, 'profile', 'pronkctl')" ] || because "config: $(json "d['stack_spin_us'], d['app_spin_us'], d['profile']")"
}

buffers() {
	local script='import socket
s = socket.socket(); s.bind(("'$addr_p'", 7300)); s.listen()
print(s.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF), s.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))'
	ctl set send_buffer 65536 && ctl set receive_buffer 131072 || because "set failed" || return
	[ "$(p timeout 20 "$python" -c "$script" 2>"$work/buffers.log")" = "65536 131072" ] ||
		because "a new socket has $(p timeout 20 "$python" -c "$script" 2>&1), not 65536 131072"
}

log_level() {
	ctl set log_level error || because "set failed" || return
	ctl set rto_min_ms 21 || because "set failed" || return
	! grep -q 'rto_min_ms = 21' "$work/service.log" || because "a notice was written with log_level = error" || return
	ctl set log_level notice && ctl set rto_min_ms 20 || because "set failed" || return
	wait_until 5 grep -q 'rto_min_ms = 20, by user 0' "$work/service.log" || because "no notice was written with log_level = notice"
}

# A program that is attached when the service goes: its next connect is refused, not the kernel's.
strict() {
	spawn strict p "$python" -c "
import errno, socket, sys
a = socket.create_connection(('$addr_k', 7310))
print('open', flush=True)
try:
    a.recv(1)
except OSError:
    pass
try:
    socket.create_connection(('$addr_k', 7310))
    print('kernel')
except OSError as e:
    print(errno.errorcode[e.errno])
"
	wait_until 20 eval "grep -q open '$work/strict.log' || process_gone $spawned"
	grep -q open "$work/strict.log" || because "$(tail -1 "$work/strict.log")" || return
	ctl set strict true || because "set failed" || return
	service_stop
	wait_until 20 process_gone "$spawned" || because "the program does not end" || return
	grep -qx ENETDOWN "$work/strict.log" || because "with strict = true, connect answered $(tail -1 "$work/strict.log")"
}
strict_server() {
	spawn serve k "$python" "$e2e_dir/tcp.py" serve "$addr_k" 7310
	wait_until 10 grep -q serving "$work/serve.log" || because "no server"
}

linger() {
	local pid socket=$work/run/p.sock
	p_raw env PRONK_CONFIG="$conf" PRONK_LINGER_S=600 PRONK_PRONKD="$pronkd" LD_PRELOAD="$libpronk" "$python" -c "
import socket
s = socket.socket(); s.bind(('$addr_p', 7320)); s.listen()" || because "the program failed" || return
	[ -S "$socket" ] || because "no service was started" || return
	pid=$("$pronk" status -c "$conf" | sed -n 's/^running: pid \([0-9]*\),.*/\1/p')
	[ -n "$pid" ] || because "no service runs" || return
	pids+=("$pid")
	ctl set linger_s 1 || because "set failed" || return
	wait_until 20 process_gone "$pid" || because "the service does not end with linger_s = 1"
}

up tap
scenario "$link: redis-server starts" redis_start p 7001
scenario "$link: wrong words are refused and change nothing" wrong_words
[ "$mode" = inline ] || scenario "$link: other users may look only" others_may_look_only
scenario "$link: 2 % loss, 1 % doubled, 2 % reordered, both ways" faults $((1 << 20))
scenario "$link: inject off" faults_off
scenario "$link: a delay is found between port and stack" delay_is_seen
if [ "$mode" != inline ]; then
	scenario "$link: a reader that is stopped is found in its wake-up" stopped_reader_is_seen
	scenario "$link: latency as bars, plot and interval, and off" shown_in_every_way
	scenario "$link: set stack_spin_us" stack_spin
	scenario "$link: set app_spin_us, and profile" app_spin
	scenario "$link: set send_buffer, receive_buffer" buffers
	scenario "$link: set log_level" log_level
fi
app_end "$redis_pid"
link_down
if [ "$mode" != inline ]; then
	up afpacket
	scenario "$link: a kernel server starts" strict_server
	scenario "$link: set strict" strict
	link_down
	link_up tap
	scenario "$link: set linger_s" linger
	link_down
fi
up memif
scenario "$link: redis-server starts" redis_start p 7001
scenario "$link: 2 % loss, 1 % doubled, 2 % reordered, both ways" faults $((8 << 20))
scenario "$link: inject off" faults_off
app_end "$redis_pid"
link_down
finish
