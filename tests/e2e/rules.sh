#!/usr/bin/env bash
# rules.sh - option rules, over TAP: which sockets of which programs are accelerated.
#   - two programs, two ports: a rule by program and port leaves one listener to the kernel, the other one is Pronk's; each answers where it must
#   - one program with sockets of every role: each is served as its rule says, and pronkctl sockets names the rule
#   - by user, also one that the program becomes by itself
#   - a program that all rules leave to the kernel neither starts nor joins a service, with pronk run as with the preload alone
#   - PRONK_RULES takes the place of the file's; pronkctl config prints rules that load again
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# sockets_open NAME COMMAND... -- ACTION...: rules.py under Pronk, by COMMAND before the interpreter; its id is in $spawned. It
# ends when the fifo NAME.in is closed.
sockets_open() {
	local name=$1 before=()
	shift
	while [ "$1" != -- ]; do
		before+=("$1")
		shift
	done
	shift
	rm -f "$work/$name.in" && mkfifo "$work/$name.in" || return
	: >"$work/$name.log"
	exec_in "$ns_p" "$conf" ${before[@]+"${before[@]}"} "$python" "$e2e_dir/rules.py" open "$@" \
		<"$work/$name.in" >"$work/$name.log" 2>&1 &
	spawned=$!
	pids+=("$spawned")
	apps+=("$spawned")
	exec {hold}>"$work/$name.in"
	wait_until 20 eval "grep -q '^open' '$work/$name.log' || process_gone $spawned"
	grep -q '^open' "$work/$name.log" || because "it did not open its sockets: $(tail -1 "$work/$name.log")"
}
sockets_close() {
	exec {hold}>&-
	wait_until 10 process_gone "$spawned" || because "it does not end"
}

all_said() { "$pronkctl" -c "$conf" --json sockets 2>"$work/said.log" | "$python" "$e2e_dir/rules.py" said "$spawned"; }

# served NAME ACTION EXPECTED: what the tools say of that socket: pronk, or the kernel's reason
served() {
	local number said
	number=$(sed -n "s/^\([0-9]*\) $2\(:[0-9]*\)\?\$/\1/p" "$work/$1.log" | head -1)
	said=$(all_said | sed -n "s/^$number //p")
	[ "$said" = "$3" ] || because "$2 (number $number): \"$said\", not \"$3\""
}

two_programs() {
	# the first port of the rule's program is the kernel's, its second is Pronk's; the same port of another program is Pronk's
	spawn redis-kernel p redis-server --port 7101 --bind 0.0.0.0 --protected-mode no --save '' --dir "$work"
	spawn redis-ours p redis-server --port 7102 --bind 0.0.0.0 --protected-mode no --save '' --dir "$work"
	sockets_open other -- listen:0.0.0.0:7103:1 || return
	wait_until 10 p_raw redis-cli -h 127.0.0.1 -p 7101 ping || because "7101 does not answer in the kernel" || return
	wait_until 10 p_raw redis-cli -h "$addr_p" -p 7102 ping || because "7102 does not answer under Pronk" || return
	p_raw timeout 5 redis-cli -h "$addr_p" -p 7101 ping >/dev/null 2>&1 && because "7101 answers under Pronk" && return 1
	[ "$(p_raw timeout 10 "$python" -c 'import socket,sys; print(socket.create_connection((sys.argv[1], 7103), 9).recv(1))' "$addr_p")" = "b'y'" ] ||
		because "7103 of the other program does not answer under Pronk" || return
	served other listen:0.0.0.0:7103 pronk || return
	sockets_close
	apps_end
}

roles() {
	local rule="of $conf"
	p_raw "$python" -c '
import socket
a = socket.socket(); b = socket.socket()
a.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); b.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
a.bind(("'"$addr_k"'", 7201)); b.bind(("'"$addr_k"'", 7301)); a.listen(9); b.listen(9)
print("listening", flush=True)
import sys; sys.stdin.read()' <"$work/peers.in" >"$work/peers.log" 2>&1 &
	pids+=($!)
	apps+=($!)
	exec {peers}>"$work/peers.in"
	wait_until 10 grep -q listening "$work/peers.log" || because "no peers" || return
	# the kernel's first: what it serves is remembered before the program joins
	sockets_open roles -- listen:0.0.0.0:7111 connect:"$addr_k":7301 send:"$addr_k":7353 bind:0.0.0.0:7154 listen:0.0.0.0:7112 connect:"$addr_k":7201 \
		send:"$addr_k":7253 bind:0.0.0.0:7155 listen:127.0.0.1:7113 listen:"$addr_p":7114 || return
	served roles listen:0.0.0.0:7111 "rule 2 $rule" || return
	served roles "connect:$addr_k:7301" "rule 3 $rule" || return
	served roles "send:$addr_k:7353" "rule 3 $rule" || return
	served roles bind:0.0.0.0:7154 "rule 4 $rule" || return
	served roles listen:0.0.0.0:7112 pronk || return
	served roles "connect:$addr_k:7201" pronk || return
	served roles "send:$addr_k:7253" pronk || return
	served roles bind:0.0.0.0:7155 pronk || return
	served roles listen:127.0.0.1:7113 "bound to a loopback address" || return
	served roles "listen:$addr_p:7114" pronk || return
	exec {peers}>&-
	sockets_close
}

own_address() {
	local said
	# the kernel does not have Pronk's address, and the rule leaves the socket to the kernel: its own word
	said=$(p "$python" -c 'import socket,sys; s = socket.socket(); s.bind((sys.argv[1], 7111))' "$addr_p" 2>&1)
	[[ $said == *"Cannot assign requested address"* ]] || because "a bind that the rule leaves to the kernel: $said"
}

users() {
	sockets_open user setpriv --reuid=65534 --regid=65534 --clear-groups -- listen:0.0.0.0:7115 || return
	[ -z "$(all_said)" ] ||
		because "a program of that user has joined" || return
	sockets_close || return
	sockets_open user -- listen:0.0.0.0:7115 || return
	served user listen:0.0.0.0:7115 pronk || return
	sockets_close
}

other_rules() {
	PRONK_RULES='( { port = 7112; action = "kernel"; } )' sockets_open env -- listen:0.0.0.0:7111 listen:0.0.0.0:7112 || return
	served env listen:0.0.0.0:7111 pronk || return
	served env listen:0.0.0.0:7112 "rule 1 of PRONK_RULES" || return
	sockets_close
}

config_again() {
	"$pronkctl" -c "$conf" config >"$work/again.conf" || because "pronkctl config: exit status $?" || return
	grep -q '^  { role = "server"; port = "7111"; action = "kernel"; }, # rule 2, line' "$work/again.conf" ||
		because "it prints: $(grep -A3 '^rules' "$work/again.conf")" || return
	p_raw "$pronkd" --check -c "$work/again.conf" >"$work/again.log" 2>&1 || because "what it prints does not load: $(cat "$work/again.log")" || return
	"$pronkctl" -c "$conf" --json config | "$python" -c '
import json, sys
rules = json.load(sys.stdin)["rules"]
assert len(rules["value"]) == 6 and rules["value"][1] == {"role": "server", "port": "7111", "action": "kernel"}, rules
assert rules["origin"] == "file" and rules["place"].startswith(sys.argv[1] + ":"), rules' "$conf" 2>"$work/again.log" ||
		because "as JSON: $(tail -1 "$work/again.log")"
}

service_runs() { "$pronk" status -c "$conf" >/dev/null 2>&1; }
nothing_is_started() {
	local said launched want
	service_runs && because "a service runs already" && return 1
	for launched in 1 ''; do
		: >"$work/memcached.log"
		if [ -n "$launched" ]; then
			exec_in "$ns_p" "$conf" memcached -u root -l 0.0.0.0 -p 7116 >"$work/memcached.log" 2>&1 &
		else
			exec ip netns exec "$ns_p" env PRONK_CONFIG="$conf" LD_PRELOAD="$libpronk" memcached -u root -l 0.0.0.0 -p 7116 >"$work/memcached.log" 2>&1 &
		fi
		spawned=$!
		pids+=("$spawned")
		wait_until 10 p_raw timeout 2 "$python" -c 'import socket; socket.create_connection(("127.0.0.1", 7116), 1)' ||
			because "memcached does not answer: $(tail -1 "$work/memcached.log")" || return
		service_runs && because "memcached has started a service" && return 1
		[ ! -e "$work/run" ] || because "there is a runtime folder" || return
		said=$(grep -a pronk "$work/memcached.log")
		want=
		[ -z "$launched" ] || want="pronk: rule 5 of $conf leaves memcached to the kernel's network stack"
		[ "$said" = "$want" ] || because "it says: $said" || return
		process_end "$spawned"
	done
}

link_up tap 'linger_s = 1;' 'rules = (' \
	'  { program = "redis-server"; role = "server"; port = "7101"; action = "kernel"; },' \
	'  { role = "server"; port = 7111; action = "kernel"; },' \
	'  { program = "python*"; address = "198.18.51.0/24"; port = "7300-7399"; action = "kernel"; },' \
	'  { role = "udp"; port = 7154; action = "kernel"; },' \
	'  { program = "memcached"; action = "kernel"; },' \
	'  { user = 65534; action = "kernel"; }' \
	');'
mkfifo "$work/peers.in"
scenario "rules leave all to the kernel: no service is started" nothing_is_started
if [ "$mode" = dedicated ]; then
	scenario "the service starts" service_start
fi
scenario "two programs and two ports" two_programs
scenario "one program, sockets of every role" roles
scenario "a bind to Pronk's own address" own_address
scenario "by user" users
scenario "PRONK_RULES instead of the file's" other_rules
if [ "$mode" = dedicated ]; then
	scenario "pronkctl config prints what loads again" config_again
fi
link_down
finish
