#!/usr/bin/env bash
# cpython.sh: the socket side of CPython 3.11's own test suite (package libpython3.11-testsuite). PKS_MODULES chooses others.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

python=/usr/bin/python3.11
modules="test_socket test_select test_selectors test_epoll test_poll"
more="test_socketserver test_asyncio test_asyncore test_asynchat test_ftplib test_httplib test_poplib test_smtplib test_telnetlib
	test_imaplib test_urllib2_localnet test_xmlrpc test_ssl test_httpservers test_logging test_subprocess
	test_multiprocessing_fork test_multiprocessing_spawn test_multiprocessing_main_handling test_signal test_os test_posix test_fcntl
	test_ioctl test_eintr test_fork1 test_pipes test_wait4 test_threading test_concurrent_futures test_docxmlrpc test_wsgiref test_nntplib"
[ -n "$quick" ] || modules="$modules $more"
modules=${PKS_MODULES:-$modules}
[ -x $python ] && [ -f /usr/lib/python3.11/test/test_socket.py ] || die "install libpython3.11-testsuite (tools/install-deps --suites)"

# python_test LEG XML ARG...: -m test in a folder of its own; VSOCK needs a hypervisor's devices
python_test() {
	local leg=$1 xml=$2
	shift 2
	mkdir -p "$work/tmp.$leg"
	(cd "$work/tmp.$leg" && under "$leg" timeout -k 10 "${PKS_LIMIT_S:-1200}" $python -m test --timeout 600 -i '*VSOCK*' --tempdir "$work/tmp.$leg" --junit-xml "$xml" "$@")
}

# xml_lines FILE: "pass|fail|skip NAME" for every test case
xml_lines() {
	$python - "$1" <<-'END'
		import sys, xml.etree.ElementTree as tree
		for case in tree.parse(sys.argv[1]).iter("testcase"):
		    kinds = {child.tag for child in case}
		    status = "fail" if kinds & {"failure", "error"} else "skip" if "skipped" in kinds else "pass"
		    print(status, case.get("name"))
	END
}

suite_run() {
	local module xml
	: >"$2"
	for module in $modules; do
		xml=$work/$1.$module.xml
		python_test "$1" "$xml" -v "$module" >"$work/$1.$module.log" 2>&1 </dev/null
		# no report: it hung or crashed. Then every test of it is missing, and the log says where it ended
		if [ -s "$xml" ]; then
			xml_lines "$xml" >>"$2"
		else
			echo "$suite/$1: $module ended without a report: $(grep -E '^test_.* \.\.\. ?$|^Fatal|Timeout|^test_' "$work/$1.$module.log" | tail -n 2 | tr '\n' ' ')"
		fi
	done
}

suite_one() {
	local module=${2#test.}
	rm -f "$work/one.xml"
	module=${module%%.*}
	python_test "$1" "$work/one.xml" -m "$2" "$module" && xml_lines "$work/one.xml" | grep -q "^pass"
}

suite cpython kernel loopback
