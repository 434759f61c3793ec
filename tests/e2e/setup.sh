#!/usr/bin/env bash
# setup.sh - `pronk check` and `pronk setup` on one end of a veth pair in a namespace:
#   - setup refuses the interface that carries the default route or the ssh session, and what is no NIC; nothing changes then
#   - the file that it writes loads, check finds nothing missing, and a program is served with it
#   - undo waits for the service's end, and leaves everything as it was; twice is harmless
#   - an ssh session is found behind sudo, and a VLAN (or macvlan) on the interface is no less of a reason
#   - hugepages are added and given back; a setup that fails half-way takes back what it has done
#   - a file that somebody has edited stays
#   - with too few hugepages the service's log and check name the same number
#   - check ends with 1 when something is missing; its JSON has the keys that scripts rely on
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

state=$work/state
out=$work/etc/setup.conf
# the configuration names neither: the service shall not meet others of this machine
export PRONK_RUNTIME_DIR=$work/run PRONK_NAME=setup
# nor shall the session matter in which somebody runs this
export SSH_CONNECTION="127.0.0.1 40000 127.0.0.1 22"

# behind_sudo=1: a parent has the ssh session's variables, setup itself has not
setup() {
	if [ "${behind_sudo:-}" ]; then
		p_raw bash -c 'env -u SSH_CONNECTION -u SSH_CLIENT "$@"; exit $?' - "$pronk" setup --state "$state" "$@" >"$work/setup.out" 2>&1
	else
		p_raw "$pronk" setup --state "$state" "$@" >"$work/setup.out" 2>&1
	fi
}
said() { tr '\n' ' ' <"$work/setup.out"; }

# everything that setup may touch
snapshot() {
	ip -n "$ns_p" -brief link
	ip -n "$ns_p" -brief addr
	ip -n "$ns_p" route
	cat "$hugepages_file" /sys/devices/system/node/node*/hugepages/hugepages-2048kB/nr_hugepages 2>/dev/null
	find "$work/etc" "$state" -type f -exec md5sum {} + 2>/dev/null
	ls -d "$work/etc" 2>/dev/null
}
is_as_before() { snapshot | cmp -s - "$work/before" || because "not as before: $(snapshot | diff - "$work/before" | tr '\n' ' ')"; }

# refused TEXT OPTION...: setup says no with that text, and nothing is changed
refused() {
	local text=$1
	shift
	setup "$@" && because "not refused: $*" && return 1
	grep -qF -- "$text" "$work/setup.out" || because "$*: $(said)" || return
	is_as_before
}

no_to_what_cuts_the_machine_off() {
	snapshot >"$work/before"
	ip -n "$ns_p" route add default via "$addr_k" dev pkp
	snapshot >"$work/before"
	refused "default route leads through it" --device pkp --out "$out" || return
	setup --device pkp --out "$out" --force --dry-run || because "--force: $(said)" || return
	ip -n "$ns_p" route del default
	snapshot >"$work/before"
	SSH_CONNECTION="$addr_k 40000 $addr_p 22" refused "ssh session" --device pkp --out "$out" || return
	behind_sudo=1 SSH_CONNECTION="$addr_k 40000 $addr_p 22" refused "ssh session" --device pkp --out "$out" || return
	if ip -n "$ns_p" link add link pkp name pkp.5 type vlan id 5 2>/dev/null || ip -n "$ns_p" link add link pkp name pkp.5 type macvlan 2>/dev/null; then
		snapshot >"$work/before"
		refused "lie on it: pkp.5" --device pkp --out "$out" || return
		ip -n "$ns_p" link del pkp.5
		snapshot >"$work/before"
	else
		remark "this kernel has neither VLANs nor macvlan"
	fi
	refused "neither an interface" --device nosuchif --out "$out" || return
	refused "is no Ethernet interface" --device lo --out "$out" || return
	refused "no PCI device" --device pkp --bind vfio-pci --out "$out" || return
	refused "there is no PCI device" --device ffff:1f:1f.7 --address 192.0.2.1/24 --out "$out" || return
	refused "has to name an address that nobody has" --device afpacket:pkp --out "$out" || return
	refused "is the kernel's" --device afpacket:pkp --address "$addr_p/24" --out "$out" || return
	refused "allowed: latency, balanced, throughput" --device pkp --profile fast --out "$out" || return
	refused "allowed: auto, or 1 to" --device pkp --hugepages 0 --out "$out" || return
	setup --device pkp --out - || because "to the screen: $(said)" || return
	is_as_before
}

writes_a_file_that_loads() {
	snapshot >"$work/before"
	setup --device pkp --out "$out" --profile latency || because "$(said)" || return
	p_raw "$pronkd" --check -c "$out" >"$work/check.out" 2>&1 || because "pronkd --check: $(cat "$work/check.out")" || return
	grep -q '^device = "afxdp:pkp";' "$out" && grep -q '^profile = "latency";' "$out" || because "$out: $(grep -v '#' "$out" | tr '\n' ' ')" || return
	# again, and with another wish
	setup --device pkp --out "$out" || because "the second time: $(said)" || return
	grep -q '^profile = "balanced";' "$out" || because "the second time it has not changed"
}

nothing_is_missing() {
	p_raw "$pronk" check -c "$out" >"$work/check.out" || because "$(grep -A2 '^missing' "$work/check.out" | tr -s ' \n' ' ')" || return
	p_raw "$pronk" check -c "$out" --json | "$python" -c '
import json, sys
all = json.load(sys.stdin)
assert list(all) == ["version", "config", "device", "root", "usable", "ok", "notes", "warnings", "missing", "items"], list(all)
assert all["usable"] and all["missing"] == 0 and all["device"] == "afxdp:pkp", all
for item in all["items"]:
    assert list(item) == ["id", "state", "found", "means", "fix"], item
    assert item["state"] in ("ok", "note", "warning", "missing"), item
ids = [item["id"] for item in all["items"]]
assert len(ids) == len(set(ids)), ids
for id in "config kernel.version rights.user hugepages.reserved cores.numa xdp.driver device.route address.own service".split():
    assert id in ids, id' 2>"$work/json.out" || because "$(tail -1 "$work/json.out")"
}

a_program_is_served() {
	conf=$out
	spawn server p "$python" "$e2e_dir/follow.py" serve 7300
	wait_until 20 grep -q listening "$work/server.log" || because "no server: $(tail -1 "$work/server.log")" || return
	wait_until 10 k_raw timeout 10 "$python" "$e2e_dir/follow.py" once "$addr_p" 7300 || because "no answer" || return
	"$pronkctl" -c "$out" sockets | grep -q LISTEN || because "it is the kernel's: $("$pronkctl" -c "$out" sockets | tail -2)" || return
	"$pronk" check -c "$out" | grep -q '^ok  *service *runs' || because "check does not see the service"
}

undo_waits_and_leaves_no_trace() {
	setup --undo "$out" && because "undone under a running service" && return 1
	grep -q "pronk stop" "$work/setup.out" || because "$(said)" || return
	app_end "$spawned"
	"$pronk" stop -c "$out" >/dev/null || because "it does not stop" || return
	setup --undo "$out" || because "$(said)" || return
	is_as_before || return
	setup --undo "$out" || because "the second time: $(said)" || return
	grep -q 'nothing to take back' "$work/setup.out" || because "the second time: $(said)" || return
	is_as_before
}

hugepages_and_back() {
	local file now
	snapshot >"$work/before"
	setup --device pkp --out "$out" --hugepages 1 || because "fewer than there are: $(said)" || return
	file=$(sed -n 's/^hugepages: \(.*\) is [0-9]*$/\1/p' "$work/setup.out")
	now=$(cat "$file")
	setup --undo "$out" && is_as_before || because "$(said)" || return
	# the file cannot be made: nothing else is done
	setup --device pkp --out "/proc/self/nothing/x.conf" --hugepages $((now + 2)) && because "a file in /proc" && return 1
	is_as_before || return
	# the pages cannot be had: the file goes again, with its folder; the mount is one of that process's namespace
	echo 0 >"$work/no_pages"
	p_raw unshare -m bash -c 'mount --bind "$1" "$2" && mount -o remount,ro,bind "$2" && shift 2 && "$@"; exit $?' - \
		"$work/no_pages" "$file" "$pronk" setup --state "$state" --device pkp --out "$out" --hugepages 2 >"$work/setup.out" 2>&1 &&
		because "hugepages from a file that cannot be written" && return 1
	grep -q "cannot write $file" "$work/setup.out" && grep -q 'nothing was changed' "$work/setup.out" || because "$(said)" || return
	is_as_before || return
	if ! setup --device pkp --out "$out" --hugepages $((now + 2)); then
		grep -q 'hugepages only' "$work/setup.out" || because "$(said)" || return
		remark "this machine has no memory for two pages more"
		is_as_before
		return
	fi
	[ "$(cat "$file")" = $((now + 2)) ] || because "$file is $(cat "$file")" || return
	setup --undo "$out" || because "$(said)" || return
	is_as_before
}

edited_file_stays() {
	setup --device pkp --out "$out" || because "$(said)" || return
	echo "stacks = 1;" >>"$out"
	setup --undo "$out" && because "gone, with what somebody wrote" && return 1
	grep -q 'was changed since' "$work/setup.out" && [ -f "$out" ] || because "$(said)" || return
	setup --device pkp --out "$out" && because "written over" && return 1
	setup --undo "$out" --force || because "--force: $(said)" || return
	[ ! -e "$work/etc" ]
}

# the service's log and check say the same of a machine with too few: 30, of which 8 are free
pages_agree() {
	local wanted file=$work/pages.conf
	conf_write "$file" 'device = "tap:pkpages";'
	# where both look; what is left of the machine stays as it is
	cat >"$work/few" <<-'END'
		mount -t tmpfs none /sys/kernel/mm/hugepages && cd /sys/kernel/mm/hugepages && mkdir hugepages-2048kB &&
			echo 30 >hugepages-2048kB/nr_hugepages && echo 8 >hugepages-2048kB/free_hugepages && echo 0 >hugepages-2048kB/resv_hugepages || exit 99
		cd / && exec "$@"
	END
	p_raw env PRONK_NAME=pages unshare -m bash "$work/few" "$pronk" check -c "$file" >"$work/pages.out" 2>&1
	wanted=$(sed -n 's/^note *hugepages.reserved *2 MB: 30 reserved, 8 free; the service wants about \([0-9]*\)$/\1/p' "$work/pages.out")
	[ -n "$wanted" ] || because "check: $(grep hugepages.reserved "$work/pages.out")" || return
	grep -q "echo $((30 + wanted - 8)) | sudo tee /sys/kernel/mm/hugepages/" "$work/pages.out" || because "$wanted are wanted, and check advises otherwise" || return
	: >"$work/pages.log"
	ip netns exec "$ns_p" env PRONK_NAME=pages unshare -m bash "$work/few" "$pronkd" -c "$file" >"$work/pages.log" 2>&1 &
	spawned=$!
	pids+=("$spawned")
	wait_until 20 eval "grep -q 'ready: ' '$work/pages.log' || process_gone $spawned"
	process_end "$spawned"
	grep -q " in plain pages, which is slower: 8 hugepages of 2 MB were free and about $wanted are wanted (.sysctl vm.nr_hugepages=$((30 + wanted - 8)). before the next start)" "$work/pages.log" ||
		because "check says $wanted, and the log: $(head -3 "$work/pages.log")"
}

missing_is_told() {
	local rc
	conf_write "$work/gone.conf" 'device = "afxdp:nosuchif";' 'name = "gone";'
	p_raw "$pronk" check -c "$work/gone.conf" >"$work/check.out"
	rc=$?
	[ $rc = 1 ] && grep -q '^missing *device.present' "$work/check.out" || because "exit status $rc" || return
	echo 'device = 7' >"$work/bad.conf"
	p_raw "$pronk" check -c "$work/bad.conf" >"$work/check.out"
	rc=$?
	[ $rc = 1 ] && grep -q '^missing *config .*bad.conf:1' "$work/check.out" || because "exit status $rc: $(head -1 "$work/check.out")" || return
	# somebody without rights is told so, and what cannot be seen
	p_raw setpriv --reuid=65534 --regid=65534 --clear-groups "$pronk" check -c "$work/p.conf" >"$work/check.out" 2>&1
	rc=$?
	[ $rc = 1 ] && grep -q '^missing *rights.user' "$work/check.out" && grep -q 'cannot be seen without root' "$work/check.out" ||
		because "not root, exit status $rc: $(grep -h '^missing' "$work/check.out" | head -2 | tr '\n' ' ')"
}

link_up afxdp
scenario "what would cut the machine off is refused" no_to_what_cuts_the_machine_off
scenario "the file loads" writes_a_file_that_loads
scenario "check finds nothing missing" nothing_is_missing
scenario "a program is served" a_program_is_served
scenario "undo leaves no trace" undo_waits_and_leaves_no_trace
scenario "hugepages, and a setup that fails half-way" hugepages_and_back
scenario "an edited file stays" edited_file_stays
scenario "check tells what is missing" missing_is_told
scenario "the log and check want the same number of hugepages" pages_agree
link_down
finish
