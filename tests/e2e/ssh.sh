#!/usr/bin/env bash
# ssh.sh [KIND...] - Debian's OpenSSH, over TAP unless told. sshd executes itself anew for each connection and separates its
# privileges, all with the connection open:
#   - sshd -D under Pronk: commands, their exit status and output, 24 at a time, two rounds
#   - scp and sftp there and back, rsync over ssh, byte-exact
#   - forwarded ports
#   - ssh and scp under Pronk against a sshd of the kernel's
#   - reload (SIGHUP: sshd executes itself with its listener closed), orderly end; all memory comes back
. "$(dirname "${BASH_SOURCE[0]}")/apps.sh"

sshd=$(command -v sshd || echo /usr/sbin/sshd)
[ -x "$sshd" ] || die "sshd is missing: tools/install-deps --test"

keys_make() {
	[ ! -e "$work/ssh/user" ] || return 0
	install -d -m 700 "$work/ssh"
	mkdir -p /run/sshd
	ssh-keygen -q -t ed25519 -N '' -f "$work/ssh/host" && ssh-keygen -q -t ed25519 -N '' -f "$work/ssh/user" || because "no keys" || return
	cp "$work/ssh/user.pub" "$work/ssh/authorized"
}

# sshd_start SIDE PORT
sshd_start() {
	local side=$1 port=$2 addr=$addr_p
	[ "$side" = p ] || addr=$addr_k
	keys_make || return
	cat >"$work/ssh/sshd-$port" <<-END
		Port $port
		ListenAddress $addr
		HostKey $work/ssh/host
		AuthorizedKeysFile $work/ssh/authorized
		PidFile $work/ssh/$port.pid
		StrictModes no
		UsePAM no
		PermitRootLogin yes
		PasswordAuthentication no
		MaxStartups 200
		MaxSessions 50
		Subsystem sftp internal-sftp
	END
	spawn "sshd-$port" "$side" "$sshd" -D -e -f "$work/ssh/sshd-$port"
	sshd_pid=$spawned
	wait_until 10 grep -q "Server listening on $addr" "$work/sshd-$port.log" || because "sshd: $(tail -1 "$work/sshd-$port.log")"
}

options=()
options_make() {
	options=(-F none -i "$work/ssh/user" -o IdentitiesOnly=yes -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no -o LogLevel=ERROR
		-o ConnectTimeout=20 -o BatchMode=yes)
}
# remote SIDE COMMAND...: from the other side of a sshd on SIDE
remote() {
	if [ "$1" = p ]; then
		k timeout 60 ssh "${options[@]}" -p 2201 "root@$addr_p" "${@:2}"
	else
		p timeout 60 ssh "${options[@]}" -p 2202 "root@$addr_k" "${@:2}"
	fi
}

commands() {
	local side=$1 i round runs bad=0
	[ "$(remote "$side" 'echo hello; exit 7' 2>"$work/ssh.log"; echo $?)" = $'hello\n7' ] || because "ssh: $(tail -1 "$work/ssh.log")" || return
	for round in $(seq $rounds); do
		runs=()
		for i in $(seq 24); do
			remote "$side" "echo $i; cat >/dev/null" </dev/null >"$work/ssh.$i" 2>>"$work/ssh.log" &
			runs+=($!)
		done
		for i in "${runs[@]}"; do
			wait "$i" || bad=$((bad + 1))
		done
		for i in $(seq 24); do
			[ "$(cat "$work/ssh.$i")" = "$i" ] || bad=$((bad + 1))
		done
	done
	[ $bad = 0 ] || because "$bad commands failed: $(tail -1 "$work/ssh.log")"
}

# a stream there and back at once
stream() {
	local got
	got=$(remote "$1" cat <"$work/big" 2>"$work/ssh.log" | sha256sum | cut -d' ' -f1)
	[ "$got" = "$(sum "$work/big")" ] || because "what came back differs: $(tail -1 "$work/ssh.log")"
}

copies() {
	local side=$1 run=k port=2201 addr=$addr_p
	[ "$side" = p ] || run=p port=2202 addr=$addr_k
	rm -rf "$work/up" "$work/back" "$work/tree-back"
	"$run" timeout 60 scp -q "${options[@]}" -P $port "$work/big" "root@$addr:$work/up" 2>"$work/ssh.log" || because "scp up: $(tail -1 "$work/ssh.log")" || return
	[ "$(sum "$work/up")" = "$(sum "$work/big")" ] || because "scp up: the file differs" || return
	"$run" timeout 60 scp -O -q "${options[@]}" -P $port "root@$addr:$work/up" "$work/back" 2>"$work/ssh.log" || because "scp down: $(tail -1 "$work/ssh.log")" || return
	[ "$(sum "$work/back")" = "$(sum "$work/big")" ] || because "scp down: the file differs" || return
	mkdir -p "$work/tree"
	for i in $(seq 100); do head -c $((i * 311)) /dev/urandom >"$work/tree/$i"; done
	"$run" timeout 60 rsync -a -e "ssh ${options[*]} -p $port" "$work/tree/" "root@$addr:$work/tree-back/" >"$work/ssh.log" 2>&1 || because "rsync: $(tail -1 "$work/ssh.log")" || return
	diff -r "$work/tree" "$work/tree-back" >/dev/null || because "rsync: the trees differ"
}

# a port on side k that leads through sshd to a server on side k
forwarded() {
	local tunnel
	spawn web k "$python" -m http.server --bind "$addr_k" --directory "$work/tree" 8000
	spawn tunnel k ssh "${options[@]}" -N -L "$addr_k:8001:$addr_k:8000" -p 2201 "root@$addr_p"
	wait_until 10 port_open k "$addr_k" 8001 || because "no tunnel: $(tail -1 "$work/tunnel.log")" || return
	k timeout 20 curl -sS --fail -o "$work/got" "http://$addr_k:8001/100" 2>"$work/curl.log" || because "curl: $(tail -1 "$work/curl.log")" || return
	[ "$(sum "$work/got")" = "$(sum "$work/tree/100")" ] || because "the file differs" || return
	app_end "$spawned"
}

reload() {
	kill -HUP "$sshd_pid"
	wait_until 10 eval "[ \"\$(grep -c 'Server listening' '$work/sshd-2201.log')\" = 2 ]" || because "sshd does not listen again: $(tail -1 "$work/sshd-2201.log")" || return
	[ "$(remote p echo again 2>"$work/ssh.log")" = again ] || because "ssh: $(tail -1 "$work/ssh.log")"
}

rounds=2 big_mb=24
[ -z "$quick" ] || { rounds=1 big_mb=8; }
random_file "$work/big" $big_mb
[ $# -gt 0 ] || set -- tap
for kind; do
	up "$kind"
	options_make
	memory_note
	scenario "$link: sshd starts" sshd_start p 2201
	scenario "$link: ssh, commands, 24 at a time" through tcp_accepted 24 commands p
	scenario "$link: ssh, $big_mb MB there and back at once" through tcp_accepted 1 stream p
	scenario "$link: scp and rsync, byte-exact" through tcp_accepted 3 copies p
	scenario "$link: ssh, a forwarded port" through tcp_connected 1 forwarded
	scenario "$link: sshd is told to start anew" through tcp_accepted 1 reload
	app_end "$sshd_pid"
	scenario "$link: a kernel sshd starts" sshd_start k 2202
	scenario "$link: ssh under Pronk, commands, 24 at a time" through tcp_connected 24 commands k
	scenario "$link: ssh under Pronk, $big_mb MB there and back at once" through tcp_connected 1 stream k
	scenario "$link: scp and rsync under Pronk, byte-exact" through tcp_connected 3 copies k
	app_end "$sshd_pid"
	scenario "$link: all memory comes back" settled
	link_down
done
finish
