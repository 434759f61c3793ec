# apps.sh - what the scripts about programs share beyond lib.sh: proof that a load went through Pronk, web servers' loads,
# users. Sourced.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

port_open() { "$1" timeout 2 "$python" -c 'import socket,sys; socket.create_connection((sys.argv[1],int(sys.argv[2])),1)' "$2" "$3"; }

# listens PORT [SECONDS]: true when side p's server takes connections within that time (15)
listens() { wait_until "${2:-15}" port_open k "$addr_p" "$1" || because "nothing listens on port $1"; }

# through COUNTER COUNT COMMAND...: true when the command is, and when COUNTER (tcp_accepted or tcp_connected) of side p's
# service has grown by COUNT at least meanwhile: the program was not left to the kernel
through() {
	local counter=$1 least=$2 before after
	shift 2
	# a server that ends by a signal takes what its own stack has counted along; but nobody else has the address that it listens at
	if several_stacks && [ "$counter" = tcp_accepted ]; then
		"$@"
		return
	fi
	before=$(count "$counter")
	"$@" || return
	[ "$link" != kernel ] || return 0
	after=$(count "$counter")
	[ $((after - before)) -ge "$least" ] || because "$counter grew by $((after - before)) only: not all of it went through Pronk"
}

# unharmed: side p's service is the one that was started, and says of no program that the kernel serves it; lwIP and the
# checks of what clients write found nothing
unharmed() {
	local name
	[ "$link" != kernel ] || return 0
	if several_stacks; then
		engine_ends 30 || return
		! grep -l 'the kernel serves' "$work"/*.log >"$work/fell-back" || because "fallback: $(grep -h -m1 'the kernel serves' "$work"/*.log)"
		return
	fi
	! process_gone "$service_pid" || because "the service has ended" || return
	for name in lwip_asserts bad_client_input; do
		[ "$(stat $name)" = 0 ] || because "$name is $(stat $name)" || return
	done
	! grep -l 'the kernel serves' "$work"/*.log >"$work/fell-back" || because "fallback: $(grep -h -m1 'the kernel serves' "$work"/*.log)"
}

# settled: what every script asks at the end of a kind
settled() {
	apps_end
	unharmed || return
	[ "$link" = kernel ] || memory_back 20
}

# sum FILE: its SHA-256
sum() { sha256sum <"$1" | cut -d' ' -f1; }

# random_file FILE MEGABYTES
random_file() { head -c "$(($2 << 20))" /dev/urandom >"$1"; }

# reloads FUNCTION LOAD...: FUNCTION five times while LOAD runs again and again; true when all of them are
reloads() {
	local function=$1 i load rc=0
	shift
	rm -f "$work/load.enough" "$work/load.reason"
	echo 0 >"$work/load.rounds"
	again "$@" &
	load=$!
	pids+=("$load")
	for i in 1 2 3 4 5; do
		sleep 0.2
		"$function" || { rc=1; break; }
	done
	touch "$work/load.enough"
	# it runs in a subshell, so its reason is in a file
	wait "$load" || { because "$(cat "$work/load.reason")"; rc=1; }
	remark "$(cat "$work/load.rounds") loads"
	return $rc
}
again() {
	local rounds=0
	while [ ! -e "$work/load.enough" ]; do
		"$@" || { echo "$reason" >"$work/load.reason"; return 1; }
		rounds=$((rounds + 1))
		echo $rounds >"$work/load.rounds"
	done
}

# --- loads of web servers on side p, from side k ---

# ab_run REQUESTS CLIENTS URL [OPTION...]: ab without one failed request
ab_run() {
	local requests=$1 clients=$2 url=$3
	shift 3
	k timeout "${limit_s:-90}" ab -q -s 60 -n "$requests" -c "$clients" "$@" "$url" >"$work/ab.out" 2>"$work/ab.log" ||
		because "ab: exit status $?: $(tail -1 "$work/ab.log")" || return
	grep -qE '^Complete requests: +'"$requests"'$' "$work/ab.out" || because "ab: $(grep Complete "$work/ab.out")" || return
	grep -qE '^Failed requests: +0$' "$work/ab.out" || because "ab: $(grep -A1 Failed "$work/ab.out" | tr -s '\n ' ' ')" || return
	! grep -q 'Non-2xx' "$work/ab.out" || because "ab: $(grep Non-2xx "$work/ab.out")" || return
	remark "$(awk '/^Requests per second/ { printf "%.0f requests/s", $4 }' "$work/ab.out")"
}

# wrk_run SECONDS URL [OPTION...]: wrk without one error; the requests that it made are in $requests
wrk_run() {
	local seconds=$1 url=$2
	shift 2
	k timeout $((seconds + 30)) wrk -t 2 -c 50 -d "$seconds" --timeout 10s "$@" "$url" >"$work/wrk.out" 2>&1 || because "wrk: exit status $?" || return
	! grep -qE 'Socket errors|Non-2xx' "$work/wrk.out" || because "wrk: $(grep -E 'Socket errors|Non-2xx' "$work/wrk.out")" || return
	requests=$(awk '/requests in/ { print $1 }' "$work/wrk.out")
	[ "${requests:-0}" -gt 0 ] || because "wrk made no request"  || return
	remark "$requests requests"
}

# fetched URL FILE COUNT: curl, COUNT at a time, gets exactly that file each time
fetched() {
	local url=$1 file=$2 count=$3 want i fetchers=() bad=0
	want=$(sum "$file")
	for ((i = 0; i < count; i++)); do
		k timeout "${limit_s:-60}" curl -sS --fail -o "$work/got.$i" "$url" 2>>"$work/curl.log" &
		fetchers+=($!)
	done
	for i in "${!fetchers[@]}"; do
		wait "${fetchers[$i]}" && [ "$(sum "$work/got.$i")" = "$want" ] || bad=$((bad + 1))
	done
	rm -f "$work"/got.*
	[ $bad = 0 ] || because "$bad of $count copies are not the file: $(tail -1 "$work/curl.log")"
}
