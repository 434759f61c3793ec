# lib.sh - what the scripts of this folder and of tests/ share: messages, hugepages, waiting. Sourced by bash scripts.

say() { echo "${0##*/}: $*"; }
warn() { echo "${0##*/}: $*" >&2; }
die() {
	warn "$*"
	exit 1
}

# need_root WHAT: ends with a message unless this is root
need_root() {
	[ "$(id -u)" = 0 ] || die "$1 needs root (network namespaces, hugepages): use sudo"
}

# sources FOLDER...: C files and headers below these folders of the tree, one in a line. Without git on purpose: a tree without a
# repository, or of another owner, has the same files. False when there are none.
sources() {
	find "$@" -name '*.[ch]' -not -path '*/build*/*' | sort | grep .
}

# wait_until SECONDS COMMAND...: runs COMMAND again and again until it succeeds; false when the time is over
wait_until() {
	local end=$((${EPOCHREALTIME/./} + $1 * 1000000))
	shift
	until "$@" >/dev/null 2>&1; do
		[ "${EPOCHREALTIME/./}" -lt "$end" ] || return 1
		sleep 0.02
	done
}

# process_gone PID: true when no process has this id, or what is left of it waits for its parent only
process_gone() {
	local state
	state=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null) || true
	[ -z "$state" ] || [ "$state" = Z ]
}

# process_end PID [SECONDS]: SIGTERM, then SIGKILL when the process still lives after SECONDS (10)
process_end() {
	process_gone "$1" && return 0
	kill "$1" 2>/dev/null || true
	wait_until "${2:-10}" process_gone "$1" && return 0
	kill -KILL "$1" 2>/dev/null || true
	wait_until 5 process_gone "$1"
}

# process_ticks PID: the CPU time that the process has used, in clock ticks (all threads, not its children)
process_ticks() {
	sed 's/^.*) //' "/proc/$1/stat" | awk '{ print $12 + $13 }'
}

hugepages_file=/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
hugepages_before=

# hugepages_reserve COUNT: raises the number of 2 MB hugepages to COUNT. False when the kernel gives fewer; what it gave
# stays until hugepages_restore.
hugepages_reserve() {
	local now
	[ -r "$hugepages_file" ] || return 1
	now=$(cat "$hugepages_file")
	[ "$now" -lt "$1" ] || return 0
	hugepages_before=${hugepages_before:-$now}
	echo "$1" >"$hugepages_file" 2>/dev/null || return 1
	[ "$(cat "$hugepages_file")" -ge "$1" ]
}

# hugepages_restore: undoes hugepages_reserve
hugepages_restore() {
	[ -n "$hugepages_before" ] || return 0
	echo "$hugepages_before" >"$hugepages_file" 2>/dev/null || true
	hugepages_before=
}

# namespaces_end PREFIX: removes network namespaces PREFIX<pid>... whose creating process is gone, with what runs in them
namespaces_end() {
	local name owner pid
	for name in $(ip netns list 2>/dev/null | awk -v p="$1" 'index($1, p) == 1 { print $1 }'); do
		owner=$(sed -E "s/^$1([0-9]+).*/\1/" <<<"$name")
		[ "$owner" != "$name" ] && process_gone "$owner" || continue
		for pid in $(ip netns pids "$name" 2>/dev/null); do
			kill -KILL "$pid" 2>/dev/null || true
		done
		ip netns del "$name" 2>/dev/null || true
	done
}
