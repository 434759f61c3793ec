#!/usr/bin/env bash
# stress.sh: stress-ng's descriptor and socket stressors with --verify, bounded, each in a process of its own.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

command -v stress-ng >/dev/null || die "install stress-ng (tools/install-deps --suites)"
seconds=${PKS_SECONDS:-4}
# NAME: options. Two workers each, so that ports next to each other are in use at once
plans() {
	cat <<-'END'
		sock: --sock 2 --sock-nodelay
		sock-mmsg: --sock 2 --sock-opts sendmmsg
		sock-msg: --sock 2 --sock-opts sendmsg
		sock-write: --sock 2 --sock-type stream --sock-opts send
		udp: --udp 2
		udp-gro: --udp 1 --udp-gro
		udp-flood: --udp-flood 1
		epoll: --epoll 2
		sockmany: --sockmany 1
		sockabuse: --sockabuse 1
		sockdiag: --sockdiag 1
		sockfd: --sockfd 1
		sockpair: --sockpair 1
		poll: --poll 1
		dup: --dup 1
		close: --close 1
		pipe: --pipe 1
		pipeherd: --pipeherd 1
		sendfile: --sendfile 1
		splice: --splice 1
		tee: --tee 1
		vmsplice: --vm-splice 1
		eventfd: --eventfd 1
		timerfd: --timerfd 1
		signalfd: --sigfd 1
		sigio: --sigio 1
		fcntl: --fcntl 1
		ioctl-net: --netdev 1
		fork: --fork 1
		vfork: --vfork 1
		clone: --clone 1
		exec: --exec 1
		dccp: --dccp 1
		sctp: --sctp 1
		rawudp: --rawudp 1
		rawsock: --rawsock 1
		icmp-flood: --icmp-flood 1
		handle: --handle 1
		fd-race: --open 1
	END
}
wanted=${PKS_TESTS:-.}
[ -z "$quick" ] || wanted=${PKS_TESTS:-'^(sock|udp|epoll|sockmany|sockabuse|sockfd|poll|dup|close|sendfile|splice)$'}

one() {
	local options
	options=$(plans | sed -n "s/^$2: //p")
	# shellcheck disable=SC2086
	(cd "$work" && under "$1" timeout -k 5 90 stress-ng $options --timeout "${seconds}s" --verify --metrics-brief --temp-path "$work" --oomable) </dev/null
}

suite_run() {
	local name rc
	mkdir -p "$work/$1"
	: >"$2"
	while read -r name; do
		one "$1" "$name" >"$work/$1/$name.log" 2>&1
		rc=$?
		# 0 done, 3 not possible here, 4 not implemented
		case $rc in
		0) grep -qiE 'fail:|skipp(ed|ing)' "$work/$1/$name.log" && echo "skip $name" || echo "pass $name" ;;
		3 | 4) echo "skip $name" ;;
		*) echo "fail $name" ;;
		esac >>"$2"
	done < <(plans | sed 's/:.*//' | grep -E "$wanted")
}
suite_one() { one "$1" "$2"; }

suite stress kernel loopback
