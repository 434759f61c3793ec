#!/usr/bin/env bash
# manager.sh - the service under a service manager, and as an ordinary user:
#   - readiness and the end are told to $NOTIFY_SOCKET (not when started for a program); the journal gets each message with its fields, also by way of stderr; log_rate holds lines back
#   - without a journal the messages go to stderr
#   - the systemd unit is one, and its sandbox leaves little exposed
#   - memif without any right, TAP, AF_PACKET and AF_XDP with the capabilities that doc/install.md lists; each that is missing is named
#   - AF_PACKET: a line says that the kernel has the port's address, too
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# manager_start FILE SOCKET: receives in the background until manager_stop
manager_start() {
	"$python" "$e2e_dir/manager.py" "$1" "$2" &
	manager_pid=$!
	pids+=("$manager_pid")
	wait_until 10 grep -qs listening "$1" || because "no socket $2"
}

readiness() {
	local told=$work/notify.out
	manager_start "$told" "$work/notify.sock" || return
	: >"$work/service.log"
	ip netns exec "$ns_p" env NOTIFY_SOCKET="$work/notify.sock" "$pronkd" -c "$conf" >"$work/service.log" 2>&1 &
	service_pid=$!
	pids+=("$service_pid")
	wait_until 20 grep -q 'READY=1' "$told" || because "nobody was told: $(tail -1 "$work/service.log")" || return
	grep -q '^READY=1 STATUS=device tap:pkp, address 198.18.51.2/24, ' "$told" || because "told: $(tail -1 "$told")" || return
	"$pronk" status -c "$conf" >/dev/null || because "it is not ready" || return
	service_stop
	wait_until 5 grep -q '^STOPPING=1' "$told" || because "nobody was told of the end" || return
	process_end "$manager_pid"
}

# the socket in the environment is that of the program's unit, which would count as ready too early
program_readiness() {
	local told=$work/notify_program.out
	manager_start "$told" "$work/notify_program.sock" || return
	p_raw env NOTIFY_SOCKET="$work/notify_program.sock" timeout 30 "$pronkd" --daemonize --autostarted -c "$conf" >"$work/autostarted.log" 2>&1 ||
		because "it does not start: $(tail -1 "$work/autostarted.log")" || return
	"$pronk" stop -c "$conf" >/dev/null || because "it was not there" || return
	# what comes last tells that nothing else came before it
	"$python" -c 'import socket, sys; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"STATUS=last", sys.argv[1])' "$work/notify_program.sock"
	wait_until 10 grep -q 'STATUS=last' "$told" || because "the test's own word did not come" || return
	! grep -qE 'READY=1|STOPPING=1' "$told" || because "told: $(head -2 "$told")" || return
	process_end "$manager_pid"
}

# begin NAME FUNCTION...: a scenario; what one before it has left does not stand in its way
begin() {
	service_stop
	scenario "$@"
}

# in_journal FILE COMMAND...: the command where a journal listens that writes to FILE; ends when the command has
in_journal() {
	local file=$1
	shift
	# a mount namespace of its own, in which /run is empty
	ip netns exec "$ns_p" unshare -m sh -c '
		mount -t tmpfs none /run && mkdir -p /run/systemd/journal || exit 99
		shift 0; file=$1; shift
		exec "$0" "'"$e2e_dir"'/manager.py" "$file" /run/systemd/journal/socket "$@"' "$python" "$file" "$@"
}

journal() {
	local told=$work/journal.out
	{ cat "$conf"; echo 'log_file = "journal";'; } >"$work/journal.conf"
	: >"$work/journal.log"
	in_journal "$told" "$pronkd" -c "$work/journal.conf" >"$work/journal.log" 2>&1 &
	service_pid=$!
	pids+=("$service_pid")
	wait_until 20 eval "grep -q 'MESSAGE=ready: ' '$told' || process_gone $service_pid"
	grep 'MESSAGE=ready: device tap:pkp' "$told" | grep 'PRIORITY=5' | grep -q 'SYSLOG_IDENTIFIER=pronkd' ||
		because "the journal has: $(tail -2 "$told") $(tail -1 "$work/journal.log")" || return
	# there is no file to open anew: it goes on
	kill -HUP "$("$pronk" status -c "$conf" | sed -n 's/^running: pid \([0-9]*\),.*/\1/p')" || because "it is not there" || return
	"$pronk" stop -c "$conf" >"$work/stop.out" 2>&1 || because "it is gone: $(cat "$work/stop.out")" || return
	wait_until 10 process_gone "$service_pid" || because "it does not end" || return
	grep -q 'MESSAGE=ending: signal 15 ' "$told" || because "it ended otherwise: $(tail -1 "$told")" || return
	[ ! -s "$work/journal.log" ] || because "on stderr: $(head -1 "$work/journal.log")" || return
	service_pid=
}

# systemd gives a unit a stream to the journal, and its number in the environment
journal_by_stderr() {
	local told=$work/stream.out
	: >"$work/stream.log"
	in_journal "$told" env JOURNAL_STREAM="$(command stat -L -c %d:%i "$work/stream.log")" "$pronkd" -c "$conf" >"$work/stream.log" 2>&1 &
	service_pid=$!
	pids+=("$service_pid")
	wait_until 20 eval "grep -q 'MESSAGE=ready: ' '$told' || process_gone $service_pid"
	grep -q 'MESSAGE=ready: ' "$told" || because "the journal has nothing; stderr: $(tail -1 "$work/stream.log")" || return
	"$pronk" stop -c "$conf" >/dev/null 2>&1
	wait_until 10 process_gone "$service_pid" || because "it does not end" || return
	service_pid=
}

no_journal() {
	: >"$work/service.log"
	ip netns exec "$ns_p" unshare -m sh -c 'mount -t tmpfs none /run && exec "$@"' sh "$pronkd" -c "$work/journal.conf" >"$work/service.log" 2>&1 &
	service_pid=$!
	pids+=("$service_pid")
	wait_until 20 grep -q 'ready: ' "$work/service.log" || because "not ready: $(tail -1 "$work/service.log")" || return
	grep -q '^pronkd: cannot write the log journal (No such file or directory): messages go to stderr' "$work/service.log" ||
		because "it says: $(head -1 "$work/service.log")" || return
	service_stop
}

program_comes() { p "$python" -c 'import socket; s = socket.socket(); s.bind(("0.0.0.0", 7402)); s.listen(1)'; }
# one line in a second: the next one says what was held back
rate() {
	{ cat "$conf"; echo 'log_rate = 1;'; echo 'log_level = "debug";'; } >"$work/rate.conf"
	: >"$work/rate.log"
	ip netns exec "$ns_p" "$pronkd" -c "$work/rate.conf" >"$work/rate.log" 2>&1 &
	service_pid=$!
	pids+=("$service_pid")
	wait_until 20 "$pronk" status -c "$conf" || because "it does not start: $(tail -1 "$work/rate.log")" || return
	# each program that comes and goes is a line or two of level debug, and more than one second goes by
	wait_until 20 eval "program_comes; grep -q 'lines were held back' '$work/rate.log'" ||
		because "$(wc -l <"$work/rate.log") lines, and none tells of others" || return
	service_stop
}

unit() {
	local file="$work/pronkd@.service" exposure
	command -v systemd-analyze >/dev/null || because "no systemd-analyze: install package systemd" || return
	sed "s|^ExecStart=[^ ]*|ExecStart=$pronkd|" "$unit_built" >"$file"
	systemd-analyze verify --man=no "$file" >"$work/verify.log" 2>&1 || because "$(head -2 "$work/verify.log")" || return
	[ ! -s "$work/verify.log" ] || because "$(head -2 "$work/verify.log")" || return
	exposure=$(systemd-analyze security --no-pager --offline=yes --threshold=50 "$file" 2>"$work/verify.log" | sed -n 's/.*exposure level.*: \([0-9.]*\) .*/\1/p')
	[ -n "$exposure" ] && [ "${exposure/./}" -le 50 ] || because "exposure ${exposure:-unknown} $(head -1 "$work/verify.log")" || return
	remark "exposure $exposure"
}

# the service as the unit runs it, as far as capabilities go: root, with no others than its
unit_rights() {
	local wanted one dropped=()
	wanted=" $(sed -n 's/^CapabilityBoundingSet=//p' "$unit_built" | tr 'A-Z' 'a-z') "
	[[ $wanted == *cap_net_admin* ]] || because "the unit bounds no capabilities" || return
	for one in $(setpriv --list-caps); do
		[[ $wanted == *" cap_$one "* ]] || dropped+=("-$one")
	done
	rm -rf "$work/run" # of another user; without CAP_DAC_OVERRIDE it is closed to root, too
	: >"$work/service.log"
	ip netns exec "$ns_p" setpriv --inh-caps=-all --bounding-set="$(IFS=,; echo "${dropped[*]}")" "$pronkd" -c "$conf" >"$work/service.log" 2>&1 &
	service_pid=$!
	pids+=("$service_pid")
	wait_until 20 eval "grep -q 'ready: ' '$work/service.log' || process_gone $service_pid"
	grep -q 'ready: ' "$work/service.log" || because "it does not start: $(tail -1 "$work/service.log")" || return
	service_stop
}

# as_user CAPABILITIES CONF: a service of user 65534 with these and no other capabilities; its id is in $service_pid
as_user() {
	local given=() one
	for one in $1; do
		given+=("+$one")
	done
	given=$(IFS=,; echo "${given[*]}")
	: >"$work/service.log"
	ip netns exec "$ns_p" setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps="-all${given:+,$given}" \
		${given:+--ambient-caps="$given"} "$pronkd" -c "$2" >"$work/service.log" 2>&1 &
	service_pid=$!
	pids+=("$service_pid")
	wait_until 20 eval "grep -q 'ready: ' '$work/service.log' || process_gone $service_pid"
}

# ordinary_user CAPABILITIES: the service of the link that is up, which a program of the same user then uses; and without each of them
ordinary_user() {
	local one rest said
	rm -rf "$work/run"
	mkdir "$work/run" && chown 65534:65534 "$work/run"
	as_user "$1" "$conf"
	grep -q 'ready: ' "$work/service.log" || because "it does not start: $(tail -1 "$work/service.log")" || return
	said=$(ip netns exec "$ns_p" setpriv --reuid=65534 --regid=65534 --clear-groups "$pronk" run -c "$conf" -- "$python" -c '
import json, socket, subprocess, sys
s = socket.socket()
s.bind(("0.0.0.0", 7401))
s.listen(1)
told = json.loads(subprocess.check_output([sys.argv[1], "-c", sys.argv[2], "--json", "sockets"], env={}))
print([row["local"]["port"] for row in told["sockets"]])' "$pronkctl" "$conf" 2>&1)
	[ "$said" = "[7401]" ] || because "a program of that user is not served: $said" || return
	service_stop
	for one in $1; do
		rest=" $1 "
		rest=${rest/ $one / }
		as_user "$rest" "$conf"
		process_gone "$service_pid" || because "it runs without $one" || return
		said=$(tail -1 "$work/service.log")
		[[ $said == *"$conf:1: device: "*" takes rights that this process does not have: CAP_${one^^} (allowed: root, or a user with these capabilities)" ]] ||
			because "without $one it says: $said" || return
	done
	service_pid=
}

# the kernel has the port's address, too: said at the start, and when it comes later, once
address_twice() {
	local said='pkp: the kernel has 198.18.52.2, too: it answers what comes for that address as well'
	service_start || return
	grep -q 'the kernel has' "$work/service.log" && because "said for nothing: $(grep 'the kernel has' "$work/service.log")" && return 1
	ip -n "$ns_p" addr add "$addr_p/24" dev pkp
	wait_until 10 grep -q "$said" "$work/service.log" || because "not noticed: $(tail -1 "$work/service.log")" || return
	service_stop
	service_start || return
	[ "$(grep -c "$said" "$work/service.log")" = 1 ] || because "at the start: $(head -3 "$work/service.log")" || return
	grep "$said" "$work/service.log" | grep -q 'Set option address (here: "198.18.52.2/24") to one that nobody has$' || because "no advice" || return
	ip -n "$ns_p" addr del "$addr_p/24" dev pkp
	service_stop
}

unit_built=$PKE_BUILD/tools/packaging/pronkd@.service
link_up tap
begin "readiness and end are told" readiness
begin "started for a program: its manager is told nothing" program_readiness
begin "messages go to the journal with their fields" journal
begin "standard error that leads to the journal" journal_by_stderr
begin "a journal that is not there" no_journal
begin "log_rate holds lines back" rate
begin "the unit and its sandbox" unit
begin "tap: with the rights that the unit leaves" unit_rights
begin "tap: as an ordinary user" ordinary_user net_admin
link_down
link_up afpacket
begin "afpacket: with the rights that the unit leaves" unit_rights
begin "afpacket: as an ordinary user" ordinary_user "net_admin net_raw"
begin "afpacket: an address that the kernel has, too" address_twice
link_down
link_up afxdp
begin "afxdp: with the rights that the unit leaves" unit_rights
begin "afxdp: as an ordinary user" ordinary_user "net_admin net_raw sys_admin ipc_lock"
link_down
ns_p=${pke}p ns_k=${pke}p link=memif
ip netns add "$ns_p"
conf_write "$conf" "device = \"memif:$work/run/memif.sock\";" 'memif_role = "server";' 'address = "198.18.54.2/24";' 'gateway = "none";' 'name = "p";'
begin "memif: with the rights that the unit leaves" unit_rights
begin "memif: as an ordinary user" ordinary_user ""
link_down
finish
