# lib.sh - what the end-to-end scripts share: links, services, programs, scenarios. Sourced by tests/e2e/*.sh and
# tests/bench/*; they are started by tests/e2e/run, or by hand with PKE_BUILD=<build folder>.
#
# A link has two sides. Programs of side p always run under Pronk: `p` prefixes them. Side k is the peer: `k` prefixes its
# programs. It is the kernel for every kind but memif, where it is a second service, so that Pronk talks to Pronk.
#
#   kind      side p                                  side k
#   tap       Pronk's end of a TAP                    the kernel's end, in the same namespace
#   afpacket  raw packets of one end of a veth pair   the other end, in a namespace of its own
#   afxdp     AF_XDP on one end of a veth pair        the other end, in a namespace of its own
#   memif     one end of a memif link                 the other end, another pronkd; with PKE_PEER=inline each
#                                                     program has a stack of its own, one after the other
#   kernel    the kernel's end of a veth pair: nothing runs under Pronk. The oracle: a script that fails here is wrong
#
# With PKE_MODE=inline no service is started on side p: the first program there that needs a stack has it. What is asked of "the
# service" is then asked of that program, and when the link goes down, the last stack must have ended by itself. Where a script is about
# one stack for many programs, or about programs that may not have one (hosted=1), a program of root's that does nothing else
# has it (host.py), the others are its clients, and that program stands for the service.
#
# Nothing leaves these namespaces: none has a route to anywhere else. Their names begin with pke and this shell's process
# id, so that leftovers of a killed run are recognised and removed by the next.
set -u

e2e_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo_root=$(cd "$e2e_dir/../.." && pwd)
. "$repo_root/tools/lib.sh"

PKE_BUILD=${PKE_BUILD:-$repo_root/build}
pronkd=$PKE_BUILD/tools/pronkd
pronk=$PKE_BUILD/tools/pronk
pronkctl=$PKE_BUILD/tools/pronkctl
libpronk=$PKE_BUILD/preload/libpronk.so
python=${PYTHON:-/usr/bin/python3}
quick=${PKE_QUICK:-}
verbose=${PKE_VERBOSE:-}
mode=${PKE_MODE:-dedicated}
peer_inline=
[ "${PKE_PEER:-}" != inline ] || peer_inline=1
hosted=      # mode inline: one program has the stack for all others
unset LD_PRELOAD ${!PRONK_@}

[ -x "$pronkd" ] || die "$pronkd is missing: build first, or set PKE_BUILD"
need_root "this test"
pke=pke$$
work=$(mktemp -d "${TMPDIR:-/tmp}/pronk-e2e.XXXXXX")
chmod 755 "$work"
passed=0
failed=0
pids=()      # processes of ours that must not outlive us
link=        # kind of the link that is up
ns_p= ns_k= ns_m=  # namespaces of the sides, and of what is between them
addr_p= addr_k=
conf=        # configuration of side p's service
service_pid= # side p's service
peer_pid=    # side k's service (memif)
log=$work/log

# Programs under Pronk run as other users, too (postgres): a tree below root's home, for instance, is closed to them.
if ! setpriv --reuid=65534 --regid=65534 --clear-groups test -r "$libpronk" 2>/dev/null; then
	mkdir -p "$work/build/tools" "$work/build/preload"
	cp "$pronkd" "$pronk" "$pronkctl" "$work/build/tools/" && cp "${libpronk%/*}"/*.so "$work/build/preload/" || die "cannot copy the build to $work"
	chmod -R a+rX "$work/build"
	pronkd=$work/build/tools/pronkd pronk=$work/build/tools/pronk pronkctl=$work/build/tools/pronkctl
	libpronk=$work/build/preload/libpronk.so
fi

cleanup() {
	local pid
	for pid in ${pids[@]+"${pids[@]}"}; do
		kill "$pid" 2>/dev/null
	done
	for pid in ${pids[@]+"${pids[@]}"}; do
		process_end "$pid" 3
	done
	for pid in $(ip netns pids "${pke}p" 2>/dev/null; ip netns pids "${pke}k" 2>/dev/null; ip netns pids "${pke}m" 2>/dev/null); do
		kill -KILL "$pid" 2>/dev/null
	done
	for name in p k m; do
		[ ! -e "/run/netns/$pke$name" ] || ip netns del "$pke$name"
	done
	[ -n "${PKE_KEEP:-}" ] && warn "files are kept in $work" || rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

# --- scenarios ---

# scenario NAME FUNCTION [ARG...]: runs it and prints one line. A function fails by returning non-zero after `because`.
scenario() {
	local name=$1 start=${EPOCHREALTIME/./} took
	shift
	reason=
	note=
	touch "$work/scenario"
	if "$@"; then
		passed=$((passed + 1))
		took=$(((${EPOCHREALTIME/./} - start) / 1000))
		printf 'ok    %-58s %6d ms%s\n' "$name" "$took" "${note:+  $note}"
	else
		failed=$((failed + 1))
		printf 'FAIL  %-58s %s\n' "$name" "${reason:-${*} returned false}"
		evidence
	fi
}

# skipped NAME REASON: says that a scenario is not run here, and why
skipped() { printf 'skip  %-58s %s\n' "$1" "$2"; }

# dedicated_only REASON NAME FUNCTION [ARG...]: a scenario that means nothing with mode = inline, and why
dedicated_only() {
	if [ "$mode" = inline ]; then
		skipped "$2" "$1"
	else
		scenario "${@:2}"
	fi
}

# several_stacks: whether every program may have a stack of its own here, so that what one asks is not what all have done
several_stacks() { [ "$mode" = inline ] && [ -z "$hosted" ]; }

# because TEXT...: remembers why a scenario fails, and is false
because() {
	reason=${reason:-$*}
	return 1
}

# remark TEXT...: adds to the scenario's line; for figures that decide nothing
remark() { note="${note:+$note, }$*"; }

# what the logs say, for a failed scenario
evidence() {
	local file
	for file in "$work"/*.log; do
		# those that this scenario wrote
		[ -s "$file" ] && [ "$file" -nt "$work/scenario" ] || continue
		echo "      --- ${file##*/} (last lines)"
		tail -n "${PKE_EVIDENCE:-4}" "$file" | cut -c1-200 | sed 's/^/      /'
	done
}

# the last line of every script; its exit status is the script's
finish() {
	echo "$passed passed, $failed failed"
	[ "$failed" = 0 ]
}

# bench NAME TEXT...: a figure that is reported and never fails
bench() {
	local name=$1
	shift
	printf 'bench %-58s %s\n' "$name" "$*"
}

# --- links ---

# veth_make: a veth pair, pkp in namespace p and pkk in namespace k; with $lossy, a bridge of namespace m between them.
# With $PKE_IMPAIR ("LOSS DUP REORDER HOLD_US SEED", see impair.c) a program stands there that loses and reorders frames.
lossy=${PKE_IMPAIR:+1}
veth_make() {
	ip netns add "${pke}k" && ns_k=${pke}k
	if [ -n "$lossy" ]; then
		ns_m=${pke}m
		ip netns add "$ns_m"
		ip link add pkp netns "$ns_p" type veth peer name mp netns "$ns_m"
		ip link add pkk netns "$ns_k" type veth peer name mk netns "$ns_m"
		if [ -n "${PKE_IMPAIR:-}" ]; then
			ip -n "$ns_m" link set dev mp up
			ip -n "$ns_m" link set dev mk up
			quiet_in "$ns_p" ethtool -K pkp tx off tso off gso off
			quiet_in "$ns_k" ethtool -K pkk tx off
			# shellcheck disable=SC2086
			ip netns exec "$ns_m" "$PKE_BUILD/tests/e2e/impair" mp mk $PKE_IMPAIR >"$work/impair.out" 2>&1 &
			impair_pid=$!
			pids+=("$impair_pid")
		else
			ip -n "$ns_m" link add name pkbr type bridge
			ip -n "$ns_m" link set dev mp master pkbr up
			ip -n "$ns_m" link set dev mk master pkbr up
			ip -n "$ns_m" link set pkbr up
		fi
	else
		ip link add pkp netns "$ns_p" type veth peer name pkk netns "$ns_k"
	fi
	# one lost frame must be one lost segment
	[ -z "$lossy" ] || quiet_in "$ns_k" ethtool -K pkk tso off gso off
	ip -n "$ns_k" link set lo up
	ip -n "$ns_k" addr add "$addr_k/24" dev pkk
	ip -n "$ns_k" link set pkk up
	ip -n "$ns_p" link set pkp up
}

# conf_write FILE TEXT...: a configuration of ours; every TEXT is a line
conf_write() {
	local file=$1
	shift
	{
		printf '%s\n' "$@"
		echo "runtime_dir = \"$work/run\";"
	} >"$file"
	[ "$mode" = inline ] && [ "$file" = "$conf" ] || return 0
	# one stack, and no thread of its own for it; at its end it writes what it has counted
	sed -i '/^stacks = /d; /^cores = /d' "$file"
	printf 'mode = "inline";\nlog_file = "%s";\n' "$work/engine.log" >>"$file"
}

# tap_make: the TAP is there, with the kernel's end of it, whether a program has the stack at its other end or not
tap_make() {
	ip -n "$ns_p" tuntap add dev pkp mode tap multi_queue || die "no TAP here"
	ip -n "$ns_p" addr add "$addr_k/24" dev pkp
	ip -n "$ns_p" link set pkp up
}

# link_up KIND [OPTION...]: makes the link and writes side p's configuration with these additional lines. Starts nothing,
# except side k's service for memif.
link_up() {
	link=$1
	shift
	ns_p=${pke}p
	ip netns add "$ns_p"
	ip -n "$ns_p" link set lo up
	conf=$work/p.conf
	case $link in
	tap)
		ns_k=$ns_p addr_p=198.18.51.2 addr_k=198.18.51.1
		conf_write "$conf" 'device = "tap:pkp";' "address = \"$addr_p/24\";" "host_address = \"$addr_k/24\";" \
			'name = "p";' "$@"
		[ "$mode" != inline ] || tap_make
		;;
	afpacket)
		addr_p=198.18.52.2 addr_k=198.18.52.1
		veth_make
		conf_write "$conf" 'device = "afpacket:pkp";' "address = \"$addr_p/24\";" 'gateway = "none";' 'name = "p";' "$@"
		;;
	afxdp)
		addr_p=198.18.53.2 addr_k=198.18.53.1
		veth_make
		ip -n "$ns_p" addr add "$addr_p/24" dev pkp
		conf_write "$conf" 'device = "afxdp:pkp";' 'address = "auto";' 'gateway = "none";' 'name = "p";' "$@"
		;;
	kernel)
		addr_p=198.18.55.2 addr_k=198.18.55.1
		veth_make
		ip -n "$ns_p" addr add "$addr_p/24" dev pkp
		: >"$conf"
		;;
	memif)
		ns_k=$ns_p addr_p=198.18.54.2 addr_k=198.18.54.1
		# the side that is there all the time is the server
		local role_p=client role_k=server
		[ -z "$peer_inline" ] || role_p=server role_k=client
		conf_write "$work/k.conf" "device = \"memif:$work/memif.sock\";" "memif_role = \"$role_k\";" \
			"address = \"$addr_k/24\";" 'gateway = "none";' 'name = "k";' ${peer_inline:+'mode = "inline";'}
		conf_write "$conf" "device = \"memif:$work/memif.sock\";" "memif_role = \"$role_p\";" \
			"address = \"$addr_p/24\";" 'gateway = "none";' 'name = "p";' "$@"
		[ -n "$peer_inline" ] || { service_spawn peer "$work/k.conf" && peer_pid=$spawned; }
		;;
	*) die "unknown kind of link $link" ;;
	esac
}

# link_down: ends the services and removes the link
# Whatever still runs in the namespaces: a process that outlives them keeps the output of the whole run open.
leftovers_end() {
	local ns pid
	for ns in "$ns_p" "$ns_k" "$ns_m"; do
		[ -n "$ns" ] || continue
		for pid in $(ip netns pids "$ns" 2>/dev/null); do
			warn "still running: $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null)"
			kill -KILL "$pid" 2>/dev/null
		done
	done
}

link_down() {
	if [ "$mode" = inline ] && [ "$link" != kernel ]; then
		apps_end
		service_stop
		scenario "$link: the last stack ends" engine_ends
	else
		service_stop
	fi
	[ -z "$peer_pid" ] || process_end "$peer_pid"
	peer_pid=
	apps_end
	if [ -n "${impair_pid:-}" ]; then
		process_end "$impair_pid"
		impair_pid=
		echo "      the link: $(cat "$work/impair.out")"
	fi
	leftovers_end
	ip netns del "$ns_p"
	[ "$ns_k" = "$ns_p" ] || ip netns del "$ns_k"
	[ -z "$ns_m" ] || ip netns del "$ns_m"
	link='' ns_p='' ns_k='' ns_m=''
	rm -rf "$work"/*.log "$work"/memif.sock
}

link_works() { k_raw timeout 2 ping -c 1 -W 1 "$addr_p"; }

# service_spawn NAME CONF: starts pronkd; its id is in $spawned. False, with the reason, when it does not get ready.
service_spawn() {
	local name=$1 file=$2
	: >"$work/$name.log"
	ip netns exec "$ns_p" "$pronkd" -c "$file" >>"$work/$name.log" 2>&1 &
	spawned=$!
	pids+=("$spawned")
	wait_until 20 eval "grep -q 'ready: ' '$work/$name.log' || process_gone $spawned"
	grep -q 'ready: ' "$work/$name.log" && ! process_gone "$spawned" ||
		because "pronkd did not get ready: $(tail -1 "$work/$name.log")"
}

# A program's stack goes when everybody has closed everything and all of it was sent. One that was killed leaves its socket behind.
engine_gone() { [ ! -e "$work/run/p.lock" ] || flock -n "$work/run/p.lock" true; }
engine_ends() {
	wait_until "${1:-20}" engine_gone ||
		because "somebody still has one: $("$pronkctl" -c "$conf" sockets 2>&1 | sed -n 2,4p | tr '\n' ' ')"
}

service_start() {
	if [ "$mode" = inline ]; then host_spawn; else service_spawn service "$conf"; fi && service_pid=$spawned
}

# host_spawn: a program that has the stack for all others
host_spawn() {
	: >"$work/host.log"
	(exec_in "$ns_p" "$conf" "$python" "$e2e_dir/host.py" "$addr_p" 9 >>"$work/host.log" 2>&1) &
	spawned=$!
	pids+=("$spawned")
	wait_until 20 eval "grep -q hosting '$work/host.log' || process_gone $spawned"
	grep -q hosting "$work/host.log" && "$pronk" status -c "$conf" | grep -q "^running: pid $spawned," ||
		because "the program that has the stack for others did not start: $(tail -1 "$work/host.log")"
}

# host_begins: from here on, with mode = inline, one program has the stack for all others
host_begins() {
	hosted=1
	[ "$mode" = inline ] || return 0
	apps_end
	engine_ends && service_start
}

service_stop() {
	[ -n "$service_pid" ] || return 0
	process_end "$service_pid"
	service_pid=
}

# up KIND [OPTION...]: a scenario of its own: the link and its service come up
up() {
	link_up "$@"
	scenario "$link: the service gets ready" service_ready
}
service_ready() {
	[ "$link" != kernel ] || return 0
	if [ "$mode" = inline ]; then
		wait_until 5 engine_gone || because "a stack is there already" || return
		[ -n "$hosted" ] || return 0
	fi
	service_start || return
	[ "$link" = memif ] || wait_until 5 link_works || because "no answer to ping"
}

# --- programs ---

# quiet_in NAMESPACE COMMAND...
quiet_in() {
	local ns=$1
	shift
	ip netns exec "$ns" "$@" >/dev/null 2>&1
}

p_raw() { ip netns exec "$ns_p" "$@"; }
k_raw() { ip netns exec "$ns_k" "$@"; }

# p PROGRAM...: under Pronk on side p
p() {
	if [ "$link" = kernel ]; then
		p_raw "$@"
	else
		ip netns exec "$ns_p" "$pronk" run -c "$conf" -- "$@"
	fi
}

# k PROGRAM...: on side k
k() {
	if [ "$link" = memif ]; then
		ip netns exec "$ns_k" "$pronk" run -c "$work/k.conf" -- "$@"
	else
		k_raw "$@"
	fi
}

# spawn NAME PREFIX PROGRAM...: in the background; its id is in $spawned (no process stands between), output in NAME.log
apps=()
spawn() {
	local name=$1 prefix=$2
	shift 2
	: >"$work/$name.log"
	# <&0: without it bash gives a background command /dev/null, whatever the caller of this function redirects
	case $prefix in
	p) if [ "$link" = kernel ]; then exec ip netns exec "$ns_p" "$@"; else exec_in "$ns_p" "$conf" "$@"; fi \
		<&0 >>"$work/$name.log" 2>&1 & ;;
	k) if [ "$link" = memif ]; then exec_in "$ns_k" "$work/k.conf" "$@"; else exec ip netns exec "$ns_k" "$@"; fi \
		<&0 >>"$work/$name.log" 2>&1 & ;;
	esac
	spawned=$!
	pids+=("$spawned")
	apps+=("$spawned")
}
exec_in() {
	local ns=$1 file=$2
	shift 2
	exec ip netns exec "$ns" "$pronk" run -c "$file" -- "$@"
}

# app_end PID: an orderly end
app_end() { process_end "$1" 10; }

# app_kill PID: the sudden end
app_kill() {
	kill -KILL "$1"
	# or the shell would write a line about it
	wait "$1" 2>/dev/null
	true
}

apps_end() {
	local pid
	for pid in ${apps[@]+"${apps[@]}"}; do
		process_end "$pid" 5
	done
	apps=()
}

# redis_start SIDE PORT [OPTION...]: a redis-server that stores nothing unless told; its id is in $redis_pid
redis_start() {
	local side=$1 port=$2 addr=$addr_p
	shift 2
	[ "$side" = p ] || addr=$addr_k
	spawn "redis-$side" "$side" redis-server --port "$port" --bind "$addr" --protected-mode no --save '' \
		--appendonly no --dir "$work" "$@"
	redis_pid=$spawned
	wait_until 10 eval "grep -q 'Ready to accept connections' '$work/redis-$side.log' || process_gone $redis_pid"
	! process_gone "$redis_pid" || because "redis-server ended: $(tail -1 "$work/redis-$side.log")"
}

# redis_cli SIDE PORT COMMAND...: redis-cli on the other side of a server on SIDE, with a time limit
redis_cli() {
	local side=$1 port=$2
	shift 2
	if [ "$side" = p ]; then
		k timeout "${limit_s:-20}" redis-cli -h "$addr_p" -p "$port" "$@"
	else
		p timeout "${limit_s:-20}" redis-cli -h "$addr_k" -p "$port" "$@"
	fi
}

# redis_load SIDE PORT OPTION...: redis-benchmark against a server on SIDE; false on any error or reset. The requests per
# second of the first test are in $rps, the latencies (ms) in $p50 and $p99.
redis_load() {
	local side=$1 port=$2 rc=0
	shift 2
	if [ "$side" = p ]; then
		k timeout "${limit_s:-60}" redis-benchmark -h "$addr_p" -p "$port" --csv "$@" >"$work/load.out" 2>"$work/load.log" || rc=$?
	else
		p timeout "${limit_s:-60}" redis-benchmark -h "$addr_k" -p "$port" --csv "$@" >"$work/load.out" 2>"$work/load.log" || rc=$?
	fi
	[ $rc = 0 ] || because "redis-benchmark $*: exit status $rc: $(tail -c 200 "$work/load.log" "$work/load.out" | tr '\r\n' '  ')" || return
	if grep -qiE 'error|reset|refused|closed' "$work/load.log" "$work/load.out"; then
		because "redis-benchmark $*: $(grep -ihE -m1 'error|reset|refused|closed' "$work/load.log" "$work/load.out")"
		return
	fi
	IFS=, read -r _ rps _ _ p50 _ p99 _ <<<"$(sed -n 2p "$work/load.out" | tr -d '"')"
	[ -n "${rps:-}" ] || because "redis-benchmark $* printed no figure"
}

# --- what the service says ---

# stat NAME [STACK]: a statistic of side p's service, total or of one stack; 0 while no program has a stack
stat() {
	[ "$link" != kernel ] || { echo 0 && return; }
	if ! "$pronkctl" -c "$conf" --json stats >"$work/stat.out" 2>"$work/stat.err"; then
		# the program with the stack may end at any time
		several_stacks && echo 0 || cat "$work/stat.err" >&2
		return
	fi
	"$python" -c '
import json, sys
for s in json.load(sys.stdin)["stats"]:
    if s["name"] == sys.argv[1]:
        print(s["stacks"][int(sys.argv[2])] if len(sys.argv) > 2 else s["total"])' "$@" <"$work/stat.out"
}

# stat_is NAME VALUE [TOLERANCE]: true when the statistic is that value, or up to TOLERANCE off
stat_is() {
	local now
	now=$(stat "$1")
	[ -n "$now" ] && [ $((now - $2)) -le "${3:-0}" ] && [ $(($2 - now)) -le "${3:-0}" ]
}

# count NAME: what a counter of side p has come to since the link is up. Inline that is the sum over all stacks that there were,
# except for those whose programs were killed: one that ends has written it to its log.
count() {
	local name=$1 before after now
	several_stacks && [ "$link" != kernel ] || { stat "$name" && return; }
	while :; do
		before=$(counted "$name")
		# between the end of its last program and its own a stack cannot be asked, and has written nothing
		wait_until 20 eval 'engine_gone || "$pronkctl" -c "$conf" --json stats'
		now=$(stat "$name")
		after=$(counted "$name")
		[ "$before" != "$after" ] || break
	done
	echo $((before + now))
}
counted() {
	[ -e "$work/engine.log" ] || { echo 0 && return; }
	sed -n 's/.*: counted until the end: //p' "$work/engine.log" | tr ',' '\n' | awk -v name="$1" '$1 == name { n += $2 } END { print n + 0 }'
}

# memory_note / memory_back [SECONDS]: remembers what is free; true when it is all free again
# Where there is a stack in each program, the memory comes back with the end of the stack: link_down looks.
memory_note() {
	! several_stacks || return 0
	noted_endpoints=$(stat endpoints_used) noted_blocks=$(stat blocks_free) noted_buffers=$(stat buffers_free)
	noted_pcbs=$(stat pcbs_used)
}
memory_is_back() {
	stat_is endpoints_used "$noted_endpoints" && stat_is blocks_free "$noted_blocks" &&
		stat_is buffers_free "$noted_buffers" 64
}
memory_back() {
	! several_stacks || return 0
	wait_until "${1:-10}" memory_is_back || because "not all memory came back: endpoints_used $noted_endpoints ->" \
		"$(stat endpoints_used), blocks_free $noted_blocks -> $(stat blocks_free)," \
		"buffers_free $noted_buffers -> $(stat buffers_free), pcbs_used $noted_pcbs -> $(stat pcbs_used)"
}

# files_raise: as many open files as we may have
files_raise() { ulimit -n "$(ulimit -Hn)"; }

now_us() { echo "${EPOCHREALTIME/./}"; }
