# lib.sh - what the benchmarks share: legs (a link, who serves it), pinned servers and clients, CPU time, rows of figures. Sourced.
#
# A benchmark compares legs in one run. A leg has a server side and a client side:
#
#   leg              server                        client                        compared with
#   loopback         kernel, 127.0.0.1             kernel                        -
#   veth             kernel, one end of a pair     kernel, the other end         -
#   memif-MODE       Pronk                         Pronk, the link's other end   loopback (iperf3: veth)
#   afxdp-MODE       Pronk, AF_XDP on a veth       kernel, the other end         veth
#   afpacket-MODE    Pronk, AF_PACKET on a veth    kernel, the other end         veth
#   tap-MODE         Pronk, a TAP                  kernel's end of the TAP       veth
#
# MODE is dedicated (a pronkd for each side that runs under Pronk) or inline (no service: the stack is in the program).
#
# A script sets $bench, $cases, $quick_cases and $legs_default; defines `serve LEG` (starts the server with `server`; with $server_per_case it is `serve LEG CASE`), `measure LEG CASE` (one
# run of the client with `client`, then `emit`s) and, if need be, `prepare` (once, before all) and `case_end CASE`; then calls bench_main "$@". Legs take
# turns, run by run, so that a disturbance hits all; the processes of legs that wait are stopped (SIGSTOP). Server and client are
# pinned to a core each. Every figure of every run is a line of a TSV file:
#
#   time of start, benchmark, case, leg, run, metric, value
#
# from which `report` prints the table of medians and `plot` draws.
bench_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for ((i = 1; i < $#; i++)); do
	[ "${!i}" != --build ] || { i=$((i + 1)) && PKE_BUILD=${!i}; }
done
. "$bench_dir/../e2e/lib.sh"

runs=5 seconds=3 calm=25 mode=both links= only= out=$PKE_BUILD/bench.tsv
cores_last=$(($(nproc) - 1))
core_server=0 core_client=$((cores_last > 0 ? 1 : 0))
core_service_s=$((cores_last > 2 ? 2 : core_server)) core_service_c=$((cores_last > 2 ? 3 : core_client))
service_options=() # more lines for the configurations of both sides
ksoftirqd=$(pgrep -d, '^ksoftirqd' || true)
# whether the time of soft interrupts is in no process's (else it is in the one that they interrupted)
irq_apart=$({ zcat /proc/config.gz || cat "/boot/config-$(uname -r)"; } 2>/dev/null | grep -c '^CONFIG_IRQ_TIME_ACCOUNTING=y')
server_per_case=   # set by scripts that start another server for each case: inline, the first would have the stack
never_freeze=      # set by scripts whose server takes EINTR for the end
stamp=$(date +%Y-%m-%dT%H:%M:%S)
tools=$PKE_BUILD/tests/bench
others=
declare -A leg_ns_s leg_ns_c leg_conf_s leg_conf_c leg_addr leg_server_pids leg_service_s leg_service_c leg_dead
ns_p=${pke}p
ns_k=${pke}k
[ -x "$tools/timed" ] || die "$tools/timed is missing: build first, or set PKE_BUILD"

bench_usage() {
	cat <<-END
		$bench [OPTION...] [CASE...]: $(sed -n '2s/^# [^:]*: //p' "$0")
		cases: $cases
		  --mode dedicated|inline|both   how Pronk runs ($mode)
		  --links "LINK..."              of loopback veth memif afxdp afpacket tap ($links_default)
		  --runs N  --seconds S          of each case on each leg ($runs, $seconds)
		  --quick                        three runs of a second; without CASE: $quick_cases
		  --calm PERCENT                 a run is repeated when all else used more of a core meanwhile ($calm)
		  --cores S,C[,PS,PC]            cores of server, client and their services ($core_server,$core_client,$core_service_s,$core_service_c)
		  --option 'KEY = VALUE;'        a line for the configurations; may be repeated
		  --out FILE                     where the figures are appended ($out)
		  --build DIR                    build folder ($PKE_BUILD)
	END
}

bench_options() {
	links=$links_default
	while [ $# -gt 0 ]; do
		case $1 in
		--mode) mode=$2 && shift ;;
		--links) links=$2 && shift ;;
		--runs) runs=$2 && shift ;;
		--seconds) seconds=$2 && shift ;;
		--quick) quick=1 runs=3 seconds=1 ;;
		--cores)
			IFS=, read -r core_server core_client core_service_s core_service_c <<<"$2,,"
			core_service_s=${core_service_s:-$core_server} core_service_c=${core_service_c%%,*}
			core_service_c=${core_service_c:-$core_client}
			shift
			;;
		--calm) calm=$2 && shift ;;
		--option) service_options+=("$2") && shift ;;
		--out) out=$2 && shift ;;
		--build) shift ;; # taken above, before lib.sh of e2e needs it
		--help) bench_usage && exit 0 ;;
		-*) bench_usage >&2 && exit 2 ;;
		*) only="$only $1" ;;
		esac
		shift
	done
	case $mode in
	dedicated | inline) modes=$mode ;;
	both) modes="dedicated inline" ;;
	*) die "no mode $mode" ;;
	esac
	[ -n "$only" ] || only=${quick:+$quick_cases}
	for one in ${only:-$cases}; do
		[[ " $cases " == *" $one "* ]] || die "no case $one (there are: $cases)"
	done
	cases=${only:-$cases}
	legs=
	for one in $links; do
		case $one in
		loopback | veth) legs="$legs $one" ;;
		memif | afxdp | afpacket | tap) for m in $modes; do legs="$legs $one-$m"; done ;;
		*) die "no link $one" ;;
		esac
	done
}

# --- legs ---

bench_cleanup() {
	local leg
	for leg in ${legs:-}; do thaw "$leg"; done
	cleanup
}
trap bench_cleanup EXIT

# pair NAME NUMBER: a veth pair NAMEs in ns_p and NAMEc in ns_k, 198.18.NUMBER.1 at the client's end
pair() {
	ip link add "${1}s" netns "$ns_p" type veth peer name "${1}c" netns "$ns_k"
	ip -n "$ns_k" addr add "198.18.$2.2/24" dev "${1}c"
	ip -n "$ns_k" link set "${1}c" up
	ip -n "$ns_p" link set "${1}s" up
}

# leg_conf FILE SIDE LEG LINE...: a configuration for one side of a leg
leg_conf() {
	local file=$1 side=$2 leg=$3 core=$core_service_s
	shift 3
	[ "$side" = s ] || core=$core_service_c
	conf_write "$file" "name = \"$leg-$side\";" "mode = \"${leg#*-}\";" 'gateway = "none";' 'linger_s = 1;' "$@" \
		${service_options[@]+"${service_options[@]}"}
	[ "${leg#*-}" = inline ] || echo "cores = \"$core\";" >>"$file"
}

# leg_up LEG: link, configurations, and for dedicated the services
leg_up() {
	local leg=$1 s=$work/$1-s.conf c=$work/$1-c.conf number=60
	leg_ns_s[$leg]=$ns_p leg_ns_c[$leg]=$ns_p leg_conf_s[$leg]='' leg_conf_c[$leg]=''
	leg_server_pids[$leg]='' leg_service_s[$leg]='' leg_service_c[$leg]='' leg_dead[$leg]=''
	case $leg in *-inline) number=61 ;; esac
	case $leg in
	loopback) leg_addr[$leg]=127.0.0.1 ;;
	veth)
		leg_addr[$leg]=198.18.50.1 leg_ns_c[$leg]=$ns_k
		pair pkv 50
		ip -n "$ns_p" addr add 198.18.50.1/24 dev pkvs
		;;
	memif-*)
		leg_addr[$leg]=198.18.$number.1
		leg_conf_s[$leg]=$s leg_conf_c[$leg]=$c
		leg_conf "$s" s "$leg" "device = \"memif:$work/$leg.sock\";" 'memif_role = "server";' "address = \"198.18.$number.1/24\";"
		leg_conf "$c" c "$leg" "device = \"memif:$work/$leg.sock\";" "address = \"198.18.$number.2/24\";"
		;;
	afxdp-* | afpacket-*)
		[ "${leg%-*}" = afxdp ] && number=$((number + 10)) || number=$((number + 20))
		leg_addr[$leg]=198.18.$number.1 leg_ns_c[$leg]=$ns_k leg_conf_s[$leg]=$s
		pair "pk$number" "$number"
		leg_conf "$s" s "$leg" "device = \"${leg%-*}:pk${number}s\";" "address = \"198.18.$number.1/24\";"
		;;
	tap-*)
		number=$((number + 30))
		leg_addr[$leg]=198.18.$number.1 leg_conf_s[$leg]=$s
		leg_conf "$s" s "$leg" "device = \"tap:pk$number\";" "address = \"198.18.$number.1/24\";" "host_address = \"198.18.$number.2/24\";"
		;;
	esac
	case $leg in *-dedicated) ;; *) return 0 ;; esac
	service_spawn "$leg-s" "$s" || return
	leg_service_s[$leg]=$spawned
	if [ -n "${leg_conf_c[$leg]}" ]; then
		service_spawn "$leg-c" "$c" || return
		leg_service_c[$leg]=$spawned
	fi
}

# leg_processes LEG: ids of the leg's processes, children included
leg_processes() { tree ${leg_server_pids[$1]:-} ${leg_service_s[$1]:-} ${leg_service_c[$1]:-}; }
tree() {
	local pid
	for pid; do
		echo "$pid"
		tree $(cat /proc/"$pid"/task/*/children 2>/dev/null)
	done
}
freeze() { [ -n "$never_freeze" ] || kill -STOP $(leg_processes "$1") 2>/dev/null || true; }
thaw() { kill -CONT $(leg_processes "$1") 2>/dev/null || true; }

servers_end() {
	local pid
	for pid in ${leg_server_pids[$1]}; do process_end "$pid" 5; done
	leg_server_pids[$1]=''
}
leg_alive() {
	local pid
	for pid in ${leg_server_pids[$1]} ${leg_service_s[$1]} ${leg_service_c[$1]}; do
		! process_gone "$pid" || because "$1: process $pid ended: $(tail -qn1 "$work/$1"*.log | tail -1)" || return
	done
}

# prefix_of LEG s|c: sets $prefix, what a program of that side is started by
prefix_of() {
	local leg=$1
	if [ "$2" = s ]; then
		prefix=(ip netns exec "${leg_ns_s[$leg]}" taskset -c "$core_server")
		[ -z "${leg_conf_s[$leg]}" ] || prefix+=("$pronk" run -c "${leg_conf_s[$leg]}" --)
	else
		prefix=(ip netns exec "${leg_ns_c[$leg]}" taskset -c "$core_client")
		[ -z "${leg_conf_c[$leg]}" ] || prefix+=("$pronk" run -c "${leg_conf_c[$leg]}" --)
	fi
}

# server LEG PATTERN PROGRAM...: starts it on the server's side and waits until its output has PATTERN (if there is one)
server() {
	local leg=$1 pattern=$2 file=$work/$1-server.log
	shift 2
	prefix_of "$leg" s
	: >"$file"
	"${prefix[@]}" "$@" </dev/null >>"$file" 2>&1 &
	spawned=$!
	pids+=("$spawned")
	leg_server_pids[$leg]="${leg_server_pids[$leg]} $spawned"
	[ -z "$pattern" ] || wait_until 20 eval "grep -q '$pattern' '$file' || process_gone $spawned"
	{ [ -z "$pattern" ] || grep -q "$pattern" "$file"; } && ! process_gone "$spawned" || because "$1 does not start: $(tail -1 "$file")"
}

# client LEG SECONDS PROGRAM...: runs it on the client's side with this time limit; output in $work/client.out, $work/client.err. Sets $wall_ns
# the CPU time of $cpu_server, $cpu_client, $cpu_service_s, $cpu_service_c (the pronkd of each side) in ns, and $others, the share of a core that
# all else on the machine used: much of it means that the figures are noise.
client() {
	local leg=$1 limit=$2 rc=0
	shift 2
	prefix_of "$leg" c
	rm -f "$work/timed"
	"$tools/timed" "$work/timed" "server=$(tree ${leg_server_pids[$leg]} | paste -sd,)" \
		"ksoftirqd=$ksoftirqd" "service_s=${leg_service_s[$leg]}" "service_c=${leg_service_c[$leg]}" -- timeout "$limit" "${prefix[@]}" "$@" \
		</dev/null >"$work/client.out" 2>"$work/client.err" || rc=$?
	[ $rc = 0 ] || because "$1: exit status $rc: $(tail -qn1 "$work/client.err" "$work/client.out" | tr '\r\n' '  ' | tail -c 300)" || return
	read -r wall_ns cpu_client busy_ns softirq_ns cpu_server soft_ns cpu_service_s cpu_service_c <<<"$(awk '{ printf "%s ", $2 }' "$work/timed")"
	others=$(awk -v w="$wall_ns" -v b="$busy_ns" -v o=$((cpu_client + cpu_server + cpu_service_s + cpu_service_c + soft_ns - (irq_apart ? 0 : softirq_ns))) 'BEGIN { printf "%.1f", (b > o ? (b - o) * 100 / w : 0) }')
}

# emit LEG CASE METRIC VALUE: a figure of this run
emit() { printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$stamp" "$bench" "$2" "$1" "$run" "$3" "$4" >>"$work/run.tsv"; }
run_keep() {
	[ ! -e "$work/run.tsv" ] || cat "$work/run.tsv" >>"$work/rows.tsv"
	rm -f "$work/run.tsv"
}

# emit_lines LEG CASE: every "METRIC NUMBER" line of the client's output
emit_lines() {
	local name value
	while read -r name value; do
		[[ $name =~ ^[a-z_0-9.]+$ && $value =~ ^[0-9.]+$ ]] && emit "$1" "$2" "$name" "$value"
	done <"$work/client.out"
}

# emit_cpu LEG CASE COUNT: CPU time for each of COUNT operations, in us
emit_cpu() {
	emit "$1" "$2" cpu_server_us "$(per "$cpu_server" "$3")"
	emit "$1" "$2" cpu_client_us "$(per "$cpu_client" "$3")"
	[ -z "${leg_service_s[$1]}" ] || emit "$1" "$2" cpu_service_s_us "$(per "$cpu_service_s" "$3")"
	[ -z "${leg_service_c[$1]}" ] || emit "$1" "$2" cpu_service_c_us "$(per "$cpu_service_c" "$3")"
	[ -z "$others" ] || emit "$1" "$2" others_percent "$others"
}
per() { awk -v a="$1" -v n="$2" 'BEGIN { printf "%.4f", n ? a / n / 1000 : 0 }'; }

# result NAME: a value of the client's output
result() { awk -v n="$1" '$1 == n { print $2; exit }' "$work/client.out"; }

# sized LEG CASE: how many operations take about $seconds, by what the last run reached; 0 when nothing is known yet
declare -A reached
sized() { awk -v r="${reached[$1,$2]:-0}" -v s="$seconds" 'BEGIN { printf "%d", r * s }'; }

# --- the run ---

legs_start() {
	ip netns add "$ns_p" && ip netns add "$ns_k" || exit 1
	ip -n "$ns_p" link set lo up
	ip -n "$ns_k" link set lo up
	declare -F prepare >/dev/null && { prepare || die "${reason:-cannot prepare}"; }
	local leg
	for leg in $legs; do
		reason=
		leg_up "$leg" && { [ -n "$server_per_case" ] || serve "$leg"; } || leg_fails "$leg"
		freeze "$leg"
	done
}
leg_fails() {
	warn "$1: ${reason:-does not work}"
	leg_dead[$1]=${reason:-does not work}
	thaw "$1"
	servers_end "$1"
	run=0
	for case in $cases; do emit "$1" "$case" failed "${leg_dead[$1]}"; done
	run_keep
}

# run_once LEG CASE: a run, and again while others disturb it, as long as the leg has repeats left in this case
run_once() {
	while :; do
		others=
		measure "$1" "$2" && leg_alive "$1" || return
		awk -v o="${others:-0}" -v most="$calm" 'BEGIN { exit o > most }' && return
		[ "${repeats[$1]:-0}" -lt "$runs" ] || return 0
		repeats[$1]=$((${repeats[$1]:-0} + 1))
		rm -f "$work/run.tsv"
	done
}

case_run() {
	local leg lost=''
	local -A repeats=()
	if [ -n "$server_per_case" ]; then
		for leg in $legs; do
			[ -z "${leg_dead[$leg]}" ] || continue
			reason=
			thaw "$leg"
			servers_end "$leg"
			serve "$leg" "$1" || leg_fails "$leg"
			freeze "$leg"
		done
	fi
	for ((run = 1; run <= runs; run++)); do
		for leg in $legs; do
			[ -z "${leg_dead[$leg]}" ] && [[ " $lost " != *" $leg "* ]] || continue
			reason=
			thaw "$leg"
			if ! run_once "$leg" "$1"; then
				warn "$leg, $1: ${reason:-does not work}"
				emit "$leg" "$1" failed "${reason:-does not work}"
				lost="$lost $leg"
				# a server that hangs must not spoil the next case
				servers_end "$leg"
				reason=
				serve "$leg" "$1" || leg_fails "$leg"
			fi
			freeze "$leg"
			run_keep
		done
	done
	if declare -F case_end >/dev/null; then case_end "$1"; fi
}

# bench_main OPTION...: the whole benchmark; its exit status is not 0 when something failed
bench_main() {
	bench_options "$@"
	: >"$work/rows.tsv"
	legs_start
	local case
	for case in $cases; do
		[ -z "$verbose" ] || warn "$case"
		case_run "$case"
	done
	cat "$work/rows.tsv" >>"$out"
	"$python" "$bench_dir/report" "$work/rows.tsv"
	! grep -q "$(printf '\tfailed\t')" "$work/rows.tsv"
}
