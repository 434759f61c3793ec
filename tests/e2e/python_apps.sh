#!/usr/bin/env bash
# python_apps.sh [KIND...] - servers of Python's standard library, over TAP unless told:
#   - http.server with threads: ab, a large file
#   - socketserver, a process and a thread for each connection: echo compared, 40 connections
#   - asyncio: an echo server and 200 clients, streams and timeouts; a client under Pronk
#   - subprocess children of a program with open sockets; multiprocessing with a shared listener
. "$(dirname "${BASH_SOURCE[0]}")/apps.sh"

py=$e2e_dir/apps.py

server() {
	spawn "$@"
	server_pid=$spawned
}
serve_end() { app_end "$server_pid" || because "the server does not end"; }

http_server() {
	mkdir -p "$work/www"
	random_file "$work/www/big" 8
	echo hello >"$work/www/small"
	server http p "$python" -m http.server --bind "$addr_p" --directory "$work/www" 8000
	listens 8000 || return
	ab_run $n 20 "http://$addr_p:8000/small" || return
	fetched "http://$addr_p:8000/big" "$work/www/big" 4 || return
	serve_end
}

# echo_run KIND: a server of apps.py on side p, clients on side k
echo_run() {
	server "$1" p "$python" "$py" serve "$1" "$addr_p" 7200
	listens 7200 || because "$(tail -1 "$work/$1.log")" || return
	k timeout 60 "$python" "$py" clients "$addr_p" 7200 40 $rounds >"$work/clients.log" 2>&1 || because "$(tail -1 "$work/clients.log")" || return
	serve_end
}
# the other way round: clients under Pronk
echo_from() {
	server "$1" k "$python" "$py" serve "$1" "$addr_k" 7201
	wait_until 10 port_open p "$addr_k" 7201 || because "no server" || return
	p timeout 60 "$python" "$py" "$2" "$addr_k" 7201 40 $rounds >"$work/clients.log" 2>&1 || because "$(tail -1 "$work/clients.log")" || return
	serve_end
}

children() {
	server children p "$python" "$py" children "$addr_p" 7202
	listens 7202 || return
	k timeout 60 "$python" "$py" asks "$addr_p" 7202 20 >"$work/asks.log" 2>&1 || because "$(tail -1 "$work/asks.log")" || return
	serve_end
}

n=2000 rounds=50
[ -z "$quick" ] || { n=500 rounds=10; }
[ $# -gt 0 ] || set -- tap
for kind; do
	up "$kind"
	memory_note
	scenario "$link: Python http.server" through tcp_accepted $n http_server
	scenario "$link: Python socketserver, forking" through tcp_accepted 40 echo_run forking
	scenario "$link: Python socketserver, threading" through tcp_accepted 40 echo_run threading
	scenario "$link: Python asyncio server" through tcp_accepted 40 echo_run asyncio
	scenario "$link: Python multiprocessing, one listener" through tcp_accepted 40 echo_run processes
	scenario "$link: Python selectors server" through tcp_accepted 40 echo_run selectors
	scenario "$link: Python clients, threads" through tcp_connected 40 echo_from threading clients
	scenario "$link: Python clients, asyncio" through tcp_connected 40 echo_from asyncio async_clients
	scenario "$link: Python subprocess children" through tcp_accepted 20 children
	scenario "$link: all memory comes back" settled
	link_down
done
finish
