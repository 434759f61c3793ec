#!/usr/bin/env bash
# runtimes.sh [KIND...] - programs of language runtimes, over TAP unless told:
#   - Node.js: an http server under ab and wrk, large bodies both ways, a
#     cluster of two (its handles travel between processes), clients
#   - Java: a server with threads and one with a selector, clients of both kinds (skipped when there is no JDK)
. "$(dirname "${BASH_SOURCE[0]}")/apps.sh"

node_start() {
	spawn node p node "$e2e_dir/apps.js" "$@"
	node_pid=$spawned
	wait_until 20 eval "grep -q serving '$work/node.log' || process_gone $node_pid"
	! process_gone "$node_pid" || because "node ended: $(tail -1 "$work/node.log")"
}
node_http() {
	node_start serve "$addr_p" 3000 || return
	ab_run $n 50 "http://$addr_p:3000/" -k || return
	ab_run $((n / 4)) 20 "http://$addr_p:3000/" || return
	wrk_run $s "http://$addr_p:3000/" || return
	# bodies both ways
	k timeout 30 curl -sS --fail --data-binary @"$work/big" -o "$work/got" "http://$addr_p:3000/echo" 2>"$work/curl.log" || because "curl: $(tail -1 "$work/curl.log")" || return
	[ "$(sum "$work/got")" = "$(sum "$work/big")" ] || because "what came back differs" || return
	app_end "$node_pid"
}
node_cluster() {
	node_start cluster "$addr_p" 3001 || return
	ab_run $n 50 "http://$addr_p:3001/" -k || return
	ab_run $((n / 4)) 20 "http://$addr_p:3001/" || return
	app_end "$node_pid"
}
node_client() {
	spawn echo k "$python" "$e2e_dir/apps.py" serve threading "$addr_k" 7300
	wait_until 10 port_open p "$addr_k" 7300 || because "no server" || return
	p timeout 60 node "$e2e_dir/apps.js" clients "$addr_k" 7300 40 "$rounds" >"$work/node-client.log" 2>&1 || because "node: $(tail -1 "$work/node-client.log")" || return
	app_end "$spawned"
}

have_java() { command -v javac >/dev/null; }
java_make() {
	mkdir -p "$work/java"
	javac -d "$work/java" "$e2e_dir/Apps.java" >"$work/javac.log" 2>&1 || because "javac: $(tail -1 "$work/javac.log")"
}
java=(java -Xshare:auto -XX:+UseSerialGC -Xmx256m -cp)
java_server() {
	spawn java p "${java[@]}" "$work/java" Apps "$1" "$addr_p" 7301
	wait_until 20 eval "grep -q serving '$work/java.log' || process_gone $spawned"
	! process_gone "$spawned" || because "java ended: $(tail -1 "$work/java.log")" || return
	k timeout 60 "$python" "$e2e_dir/apps.py" clients "$addr_p" 7301 40 "$rounds" >"$work/clients.log" 2>&1 || because "$(tail -1 "$work/clients.log")" || return
	app_end "$spawned"
}
java_client() {
	spawn echo k "$python" "$e2e_dir/apps.py" serve threading "$addr_k" 7302
	wait_until 10 port_open p "$addr_k" 7302 || because "no server" || return
	p timeout 60 "${java[@]}" "$work/java" Apps "$1" "$addr_k" 7302 40 "$rounds" >"$work/java-client.log" 2>&1 || because "java: $(tail -1 "$work/java-client.log")" || return
	app_end "$spawned"
}

n=10000 s=2 rounds=30
[ -z "$quick" ] || { n=2000 s=1 rounds=10; }
random_file "$work/big" 8
[ $# -gt 0 ] || set -- tap
for kind; do
	up "$kind"
	memory_note
	scenario "$link: Node.js http server" through tcp_accepted $((n / 4 + 100)) node_http
	scenario "$link: Node.js cluster" through tcp_accepted $((n / 4 + 50)) node_cluster
	scenario "$link: Node.js clients" through tcp_connected 40 node_client
	if have_java; then
		scenario "$link: the Java program compiles" java_make
		scenario "$link: Java server, a thread for each connection" through tcp_accepted 40 java_server threads
		scenario "$link: Java server with a selector" through tcp_accepted 40 java_server selector
		scenario "$link: Java clients, threads" through tcp_connected 40 java_client clients
		scenario "$link: Java clients, channels" through tcp_connected 40 java_client channels
	fi
	scenario "$link: all memory comes back" settled
	link_down
done
finish
