# lib.sh - what the scripts of this folder share: legs, services, results, comparison. Sourced by tests/suites/*.sh, which
# tests/suites/run starts.
#
# A leg is one run of a suite:
#
#   native    on the kernel, in a namespace of its own: what every other leg is compared with
#   kernel    under Pronk as it is (loopback = kernel): must equal the kernel exactly
#   loopback  under Pronk with loopback = pronk: 127.0.0.1 is served by the stack
#   mapped    on the kernel, 127.0.0.1 moved to another address of the namespace: what the next two are compared with
#   server    under Pronk, 127.0.0.1 moved to Pronk's address: listeners are Pronk's, their clients come over the TAP
#   client    under Pronk, 127.0.0.1 moved to the kernel's end of the TAP: clients are Pronk's, listeners the kernel's
#
# A suite script defines suite_run LEG OUT (writes "pass|fail|skip NAME" lines to OUT, running its commands by `under LEG`) and,
# where one test can run alone, suite_one LEG NAME (true when it passes), and ends with `suite NAME LEG...`.
set -u

suites_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo_root=$(cd "$suites_dir/../.." && pwd)
. "$repo_root/tools/lib.sh"

build=${PKS_BUILD:-$repo_root/build}
quick=${PKS_QUICK:-}
mode=${PKS_MODE:-dedicated}
cache=${PRONK_SUITES_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pronk-suites}
unset LD_PRELOAD ${!PRONK_@} ${!ADDRMAP_@}

[ -x "$build/tools/pronkd" ] && [ -f "$build/tests/suites/addrmap.so" ] || die "$build holds no build: use --build"
need_root "this test"
ns=pks$$
work=$(mktemp -d "${TMPDIR:-/tmp}/pronk-suites.XXXXXX")
chmod 755 "$work"
passed=0
failed=0
known=0
service_pid=
pronk_ip=198.18.43.2
kernel_ip=198.18.43.1

cleanup() {
	local name pid
	for name in "${ns}n" "${ns}t"; do
		[ -e "/run/netns/$name" ] || continue
		for pid in $(ip netns pids "$name"); do
			kill -KILL "$pid" 2>/dev/null
		done
		ip netns del "$name"
	done
	[ -n "${PKS_KEEP:-}" ] && warn "files are kept in $work" || rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

# unpacked PACKAGE...: sets place to a folder of the cache with these binary packages in it, which need not be installed
unpacked() {
	place=$cache/$1
	[ ! -f "$place/.complete" ] || return 0
	mkdir -p "$place"
	if (cd "$work" && apt-get -o APT::Sandbox::User=root download "$@") >"$work/fetch.log" 2>&1; then
		for package in "$work"/*.deb; do
			dpkg -x "$package" "$place"
			rm "$package"
		done
		touch "$place/.complete"
	else
		die "apt did not deliver $*: $(tail -n 2 "$work/fetch.log")"
	fi
}

# --- legs ---

is_native() { [ "$1" = native ] || [ "$1" = mapped ]; }

# leg_up LEG: its namespace, and its service when it has one
leg_up() {
	if is_native "$1"; then
		ip netns add "${ns}n" || die "no namespaces here"
		ip -n "${ns}n" link set lo up
		ip -n "${ns}n" link add pks0 type veth peer name pks1
		ip -n "${ns}n" addr add "$kernel_ip/24" dev pks0
		ip -n "${ns}n" link set pks0 up
		ip -n "${ns}n" link set pks1 up
		return
	fi
	ip netns add "${ns}t" || die "no namespaces here"
	ip -n "${ns}t" link set lo up
	cat >"$work/pronk.conf" <<-END
		device = "tap:pks0";
		address = "$pronk_ip/24";
		host_address = "$kernel_ip/24";
		gateway = "none";
		name = "pks";
		runtime_dir = "$work/run";
		packet_buffers = 16384;
		send_memory_mb = 128;
		loopback = "$([ "$1" = loopback ] && echo pronk || echo kernel)";
	END
	if [ "$mode" = inline ]; then
		echo 'mode = "inline";' >>"$work/pronk.conf"
		ip -n "${ns}t" tuntap add dev pks0 mode tap multi_queue || die "no TAP here"
		ip -n "${ns}t" addr add "$kernel_ip/24" dev pks0
		ip -n "${ns}t" link set pks0 up
		return
	fi
	ip netns exec "${ns}t" "$build/tools/pronkd" -c "$work/pronk.conf" >"$work/service.log" 2>&1 &
	service_pid=$!
	wait_until 30 eval "grep -q 'ready: ' '$work/service.log' || process_gone $service_pid"
	grep -q 'ready: ' "$work/service.log" && ! process_gone "$service_pid" ||
		die "pronkd did not get ready: $(tail -n 3 "$work/service.log")"
	wait_until 10 ip netns exec "${ns}t" ping -c 1 -W 1 "$pronk_ip" || die "pronkd does not answer to ping"
}

# under LEG COMMAND...: runs a command in the leg
under() {
	local leg=$1
	shift
	case $leg in
	native) ip netns exec "${ns}n" "$@" ;;
	mapped)
		ip netns exec "${ns}n" env ADDRMAP_BIND=$kernel_ip ADDRMAP_CONNECT=$kernel_ip ADDRMAP_ALSO=$kernel_ip \
			LD_PRELOAD="$build/tests/suites/addrmap.so" "$@"
		;;
	kernel | loopback)
		ip netns exec "${ns}t" env PRONK_CONFIG="$work/pronk.conf" PRONK_AUTOSTART=$([ "$mode" = inline ] && echo true || echo false) PRONK_LOG_LEVEL=error \
			LD_PRELOAD="$build/preload/libpronk.so" "$@"
		;;
	server | client)
		local ip=$pronk_ip
		[ "$leg" = server ] || ip=$kernel_ip
		ip netns exec "${ns}t" env ADDRMAP_BIND=$ip ADDRMAP_CONNECT=$ip ADDRMAP_ALSO=$([ $ip = $pronk_ip ] && echo $kernel_ip || echo $pronk_ip) \
			PRONK_CONFIG="$work/pronk.conf" PRONK_AUTOSTART=$([ "$mode" = inline ] && echo true || echo false) PRONK_LOG_LEVEL=error \
			LD_PRELOAD="$build/tests/suites/addrmap.so $build/preload/libpronk.so" "$@"
		;;
	*) die "no leg $leg" ;;
	esac
}

# value NAME: a statistic of the service
value() {
	"$build/tools/pronkctl" -c "$work/pronk.conf" --json stats |
		sed -nE "s/.*\"name\": ?\"$1\".*\"total\": ?([0-9]+).*/\1/p" | head -n 1
}
engine_gone() { [ ! -S "$work/run/pks.sock" ] && { [ ! -e "$work/run/pks.lock" ] || flock -n "$work/run/pks.lock" true; }; }
all_returned() { [ "$(value endpoints_used)" = 0 ]; }

good() { passed=$((passed + 1)); }
bad() {
	failed=$((failed + 1))
	echo "FAIL  $*"
}

# leg_down LEG: takes the leg away; what the service has to say counts
leg_down() {
	local leg=$1 pid line crossed name
	name=${ns}t
	! is_native "$leg" || name=${ns}n
	if ! is_native "$leg" && [ "$mode" = inline ]; then
		wait_until 20 engine_gone && good || bad "$suite/$leg: the last stack ends"
	fi
	for pid in $(ip netns pids "$name"); do
		[ "$pid" = "$service_pid" ] || kill -KILL "$pid" 2>/dev/null
	done
	if ! is_native "$leg" && [ "$mode" = dedicated ]; then
		if process_gone "$service_pid"; then
			bad "$suite/$leg: the service lives: $(tail -n 3 "$work/service.log")"
		else
			crossed=$(($(value tcp_accepted) + $(value tcp_connected)))
			if [ "$leg" != kernel ]; then
				[ "$crossed" -gt 0 ] && good || bad "$suite/$leg: traffic crosses the stack"
			fi
			wait_until 20 all_returned && good || bad "$suite/$leg: all sockets come back ($(value endpoints_used) left)"
			line=$(grep -E 'impossible|assert|error|warning' "$work/service.log" | head -n 3)
			[ -z "$line" ] && good || bad "$suite/$leg: the service has no complaint: $line"
			[ "$(value lwip_asserts)" = 0 ] && [ "$(value bad_client_input)" = 0 ] && good ||
				bad "$suite/$leg: $(value lwip_asserts) lwip_asserts, $(value bad_client_input) bad_client_input"
			leg_note="$crossed connections, $(value rx_packets) frames in and $(value tx_packets) out of the stack"
			process_end "$service_pid"
		fi
		service_pid=
	fi
	ip netns del "$name"
}

# --- results ---

# is_known LEG NAME: a line of known-SUITE covers it (LEG[,LEG...] or *, NAME or a pattern, the reason)
is_known() {
	local legs name _
	[ -f "$suites_dir/known-$suite" ] || return 1
	while read -r legs name _; do
		case $legs in '#'* | '') continue ;; esac
		case ",$legs," in *",$1,"* | ",*,") ;; *) continue ;; esac
		# shellcheck disable=SC2053 # a pattern
		[[ $2 == $name ]] && return 0
	done <"$suites_dir/known-$suite"
	return 1
}

# again LEG NAME: a test that differed is run alone; one that then passes was a matter of chance
again() {
	declare -F suite_one >/dev/null || return 1
	suite_one "$1" "$2" >"$work/again.log" 2>&1
}

# leg_compare LEG ORACLE: what passes in the oracle's leg must pass here
leg_compare() {
	local agree have name all differ=0 chance=0 was_known=0
	all=$(grep -c '^pass ' "$work/$2.out")
	awk '{ n = substr($0, index($0, " ") + 1) } FNR == NR { is[n] = $1; next }
		$1 == "pass" && is[n] != "pass" { print (is[n] == "" ? "missing" : is[n]), n }' "$work/$1.out" "$work/$2.out" >"$work/differ"
	while read -r have name; do
		if is_known "$1" "$name"; then
			was_known=$((was_known + 1))
		elif again "$1" "$name"; then
			chance=$((chance + 1))
			echo "again $suite/$1/$name: $have, then pass alone"
		else
			differ=$((differ + 1))
			echo "FAIL  $suite/$1/$name: passes on the kernel, $have under Pronk"
		fi
	done <"$work/differ"
	agree=$((all - differ - was_known))
	passed=$((passed + agree))
	failed=$((failed + differ))
	known=$((known + was_known))
	echo "$suite/$1: $agree agree, $differ differ, $was_known known, $chance at the second try; ${leg_note:-}"
}

# suite NAME LEG...: runs the legs and compares; the last line is "N passed, N failed"
suite() {
	local leg oracle
	suite=$1
	shift
	[ -z "${PKS_LEGS:-}" ] || set -- $PKS_LEGS
	for leg; do
		oracle=native
		case $leg in server | client) oracle=mapped ;; esac
		if [ ! -f "$work/$oracle.out" ]; then
			leg_up $oracle
			suite_run $oracle "$work/$oracle.out"
			echo "$suite/$oracle: $(grep -c '^pass ' "$work/$oracle.out") pass, $(grep -c '^fail ' "$work/$oracle.out") fail, $(grep -c '^skip ' "$work/$oracle.out") skip"
			[ "$(grep -c '^pass ' "$work/$oracle.out")" -gt 0 ] || bad "$suite/$oracle: something passes on the kernel"
			leg_down $oracle
		fi
		leg_note=
		leg_up "$leg"
		suite_run "$leg" "$work/$leg.out"
		leg_service=$service_pid
		leg_compare "$leg" $oracle
		leg_down "$leg"
		echo "$suite/$leg: ${leg_note:-no service}"
		[ -z "${PKS_RESULTS:-}" ] || cp "$work/$leg.out" "$work/$oracle.out" "$PKS_RESULTS/"
	done
	[ $known = 0 ] || echo "$known known differences (tests/suites/known-$suite)"
	echo "$passed passed, $failed failed"
	[ "$failed" = 0 ]
}
