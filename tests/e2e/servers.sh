#!/usr/bin/env bash
# servers.sh [KIND...] - more servers that people run, over TAP unless told:
#   - Apache: mpm event and mpm prefork, ab without one failed request, a file by sendfile byte-exact, graceful restarts under load
#   - lighttpd: ab, a file
#   - stunnel in front of a Redis of the other side
#   - ncat as a server of many, each with a program executed
. "$(dirname "${BASH_SOURCE[0]}")/apps.sh"

www_make() {
	[ ! -d "$work/www" ] || return 0
	mkdir -p "$work/www"
	random_file "$work/www/big" "$big_mb"
	echo hello >"$work/www/small"
	chmod -R a+rX "$work/www"
}

# apache_start MPM
apache_start() {
	local modules=/usr/lib/apache2/modules
	www_make
	rm -f "$work/apache.pid"
	cat >"$work/apache.conf" <<-END
		ServerRoot $work
		ServerName pronk
		PidFile $work/apache.pid
		DefaultRuntimeDir $work
		ErrorLog $work/apache-error.log
		LoadModule mpm_$1_module $modules/mod_mpm_$1.so
		LoadModule authz_core_module $modules/mod_authz_core.so
		User www-data
		Group www-data
		Listen $addr_p:8070
		EnableSendfile On
		EnableMMAP Off
		KeepAlive On
		MaxKeepAliveRequests 0
		StartServers 2
		<IfModule mpm_event_module>
			# more than there are clients: a child whose threads are all busy closes idle connections that ab may be using
			ThreadsPerChild 32
			MaxRequestWorkers 64
		</IfModule>
		<IfModule mpm_prefork_module>
			StartServers 8
			MaxRequestWorkers 40
		</IfModule>
		DocumentRoot $work/www
		<Directory $work/www>
			Require all granted
		</Directory>
	END
	# it signals its whole process group
	spawn apache p setsid apache2 -D FOREGROUND -f "$work/apache.conf"
	apache_pid=$spawned
	listens 8070 || because "$(tail -1 "$work/apache.log" "$work/apache-error.log")"
}
apache() {
	apache_start "$1" || return
	ab_run $n 20 "http://$addr_p:8070/small" -k || return
	ab_run $((n / 4)) 20 "http://$addr_p:8070/small" || return
	fetched "http://$addr_p:8070/big" "$work/www/big" 4 || return
	reloads graceful ab_run 200 8 "http://$addr_p:8070/small" || return
	apache_end
}
graceful() {
	local count
	count=$(grep -c 'resuming normal operations' "$work/apache-error.log")
	kill -USR1 "$apache_pid"
	wait_until 20 eval "[ \"\$(grep -c 'resuming normal operations' '$work/apache-error.log')\" -gt $count ]" || because "no graceful restart"
}
apache_end() {
	kill -TERM "$apache_pid"
	wait_until 20 process_gone "$apache_pid" || because "apache does not end" || return
	! grep -E 'exit signal|\[[a-z_]+:(alert|emerg|crit)\]' "$work/apache-error.log" >"$work/apache-bad" || because "$(head -1 "$work/apache-bad")"
}

lighttpd_run() {
	www_make
	cat >"$work/lighttpd.conf" <<-END
		server.document-root = "$work/www"
		server.bind = "$addr_p"
		server.port = 8071
		server.errorlog = "$work/lighttpd-error.log"
		server.max-keep-alive-requests = 100000
	END
	spawn lighttpd p lighttpd -D -f "$work/lighttpd.conf"
	listens 8071 || return
	ab_run $n 20 "http://$addr_p:8071/small" -k || return
	ab_run $((n / 4)) 20 "http://$addr_p:8071/small" || return
	fetched "http://$addr_p:8071/big" "$work/www/big" 4 || return
	app_end "$spawned"
}

tunnel() {
	openssl req -x509 -newkey rsa:2048 -nodes -keyout "$work/key.pem" -out "$work/crt.pem" -days 2 -subj /CN=pronk >/dev/null 2>&1 || because "no certificate" || return
	redis_start k 7001 || return
	cat >"$work/stunnel.conf" <<-END
		foreground = yes
		pid =
		[redis]
		accept = $addr_p:7443
		connect = $addr_k:7001
		cert = $work/crt.pem
		key = $work/key.pem
	END
	spawn stunnel p stunnel4 "$work/stunnel.conf"
	listens 7443 || because "$(tail -1 "$work/stunnel.log")" || return
	k timeout 60 "$python" "$e2e_dir/apps.py" tls_redis "$addr_p" 7443 20 >"$work/tls-client.log" 2>&1 || because "$(tail -1 "$work/tls-client.log")" || return
	app_end "$spawned" && app_end "$redis_pid"
}

ncat_run() {
	local out
	www_make
	spawn ncat p ncat -l "$addr_p" 7500 --keep-open --sh-exec "head -c $((big_mb << 20)) | sha256sum"
	listens 7500 || return
	out=$(k timeout 30 nc "$addr_p" 7500 <"$work/www/big" 2>"$work/nc.log")
	[[ $out == *"$(sum "$work/www/big")"* ]] || because "the sum is $out" || return
	app_end "$spawned"
}

n=4000 big_mb=24
[ -z "$quick" ] || { n=2000 big_mb=8; }
[ $# -gt 0 ] || set -- tap
for kind; do
	up "$kind" 'packet_buffers = 8192;' 'send_memory_mb = 16;' 'max_sockets = 4096;' 'max_clients = 128;'
	memory_note
	scenario "$link: Apache, mpm event" through tcp_accepted $((n / 4 + 200)) apache event
	scenario "$link: Apache, mpm prefork" through tcp_accepted $((n / 4 + 200)) apache prefork
	scenario "$link: lighttpd" through tcp_accepted $((n / 4)) lighttpd_run
	scenario "$link: stunnel in front of a Redis" through tcp_connected 20 tunnel
	scenario "$link: ncat, a program for each connection" through tcp_accepted 1 ncat_run
	scenario "$link: all memory comes back" settled
	link_down
done
finish
