/* pronk-dump.c - captures what a Pronk service sends and receives: arguments, the filter, the loop that
 * empties the stacks' rings.
 *
 * The main thread does everything; a second one waits for signals, because a signal must not cut a write of
 * the capture file in two. The service copies packets into rings and never waits for this program
 * (base/capture.h, doc/threads.md); where they go is dump_out.c's.
 */
#include <argp.h>
#include <errno.h>
#include <pcap/pcap.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "cfg.h"
#include "clock.h"
#include "wiretap.h"
#include "dump_out.h"
#include "libc.h"
#include "locate.h"
#include "pcapng.h"

enum {
	OPT_CONFIG = 0x100,
	OPT_SOCKET,
	ERR_SIZE = 512,
	RING_KB = 4096, /* default of -B */
	IDLE_MS = 100,  /* longest sleep: then it is looked whether the service still lives */
	NAP_US = 500,   /* after the rings were emptied: packets come in bursts */
	RELEASE = 64,   /* packets until their room is given back */
};

_Static_assert(sizeof(struct capture_insn) == sizeof(struct bpf_insn), "the same instruction");

struct args {
	const char *config, *socket, *instance;
	uint32_t snap_size, directions, queues, ring_kb;
	uint64_t packet_count;
	bool list, show_code;
	struct dump_out_spec out;
	char flags[DUMP_OUT_FLAGS_MAX][3];
	char *filter;
};

static struct {
	_Atomic bool is_over;
	_Atomic uint64_t captured;
	_Atomic(struct capture_shm *) shm; /* while there is one */
} state;

const char *argp_program_version = "pronk-dump " PRONK_VERSION;

static const struct argp_option options[] = {
        {"instance", 'i', "NAME", 0, "The service: its name, its socket or its configuration file", 1},
        {"config", OPT_CONFIG, "FILE", 0, "Configuration file that names the service (default: as pronkd's)",
                1},
        {"socket", OPT_SOCKET, "SOCKET", 0, "The service's socket", 1},
        {"list-instances", 'D', NULL, 0, "List the running services, and end", 1},
        {"direction", 'Q', "in|out|inout", 0, "Received packets, sent ones or both (default)", 2},
        {"queue", 'q', "LIST", 0, "Only these stacks, as 0,2-3 (default: all)", 2},
        {"snapshot-length", 's', "BYTES", 0, "Keep so much of each packet; 0, the default: all of it", 2},
        {"count", 'c', "COUNT", 0, "End after so many packets", 2},
        {"buffer-size", 'B', "KB", 0,
                "Room for packets that are not written yet, for each stack (default 4096)", 2},
        {"print-code", 'd', NULL, 0, "Print the compiled filter, and end", 2},
        {"write", 'w', "FILE", 0, "Write pcapng to FILE, or to standard output (-)", 3},
        {"file-size", 'C', "SIZE", 0,
                "Begin another file when one is larger than SIZE million bytes, or SIZE with k, m or g", 3},
        {"seconds", 'G', "SECONDS", 0, "Begin another file after so long; FILE may have strftime(3) words",
                3},
        {"file-count", 'W', "COUNT", 0, "With -C: begin anew after so many files. With -G: end then", 3},
        {NULL, 0, NULL, 0, "Without -w tcpdump prints the packets, and gets these:", 4},
        {NULL, 'n', NULL, 0, "No names instead of addresses and ports", 4},
        {NULL, 'e', NULL, 0, "The Ethernet header, too", 4},
        {NULL, 'v', NULL, 0, "More of each packet; -vv and -vvv: still more", 4},
        {NULL, 'x', NULL, 0, "The bytes in hexadecimal", 4},
        {NULL, 'X', NULL, 0, "The bytes in hexadecimal and as text", 4},
        {NULL, 'A', NULL, 0, "The bytes as text", 4},
        {NULL, 't', NULL, 0, "No time; -tttt: with the date", 4},
        {0},
};

/* A number in the range, or the usage error that says so. */
static uint64_t number(
        struct argp_state *argp, const char *what, const char *text, uint64_t min, uint64_t max)
{
	char *end;
	unsigned long long value;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end || errno || value < min || value > max)
		argp_error(argp, "%s: \"%s\" (allowed: %llu to %llu)", what, text, (unsigned long long)min,
		        (unsigned long long)max);
	return value;
}

static uint64_t file_size(struct argp_state *argp, const char *text)
{
	static const char units[] = "kKmMgG";
	size_t length = strlen(text);
	const char *unit = length ? strchr(units, text[length - 1]) : NULL;
	uint64_t factor = unit && *unit ? 1024ull << (unit - units) / 2 * 10 : 1000000;
	char digits[24];

	snprintf(digits, sizeof(digits), "%.*s", (int)(unit && *unit ? length - 1 : length), text);
	return number(argp, "-C", digits, 1, 1u << 20) * factor;
}

static uint32_t queue_bits(struct argp_state *argp, const char *text)
{
	uint16_t queue[CAPTURE_QUEUE_MAX];
	int count = cfg_parse_cores(text, queue, CAPTURE_QUEUE_MAX);
	uint32_t bits = 0;

	for (int i = 0; i < count && i < CAPTURE_QUEUE_MAX; i++)
		bits |= queue[i] < CAPTURE_QUEUE_MAX ? 1u << queue[i] : 0;
	if (count <= 0 || __builtin_popcount(bits) != count)
		argp_error(argp, "-q: \"%s\" (allowed: numbers of stacks, 0 to %d, as 0,2-3)", text,
		        CAPTURE_QUEUE_MAX - 1);
	return bits;
}

static void filter_add(struct args *args, const char *word)
{
	size_t have = args->filter ? strlen(args->filter) : 0;
	char *text = realloc(args->filter, have + strlen(word) + 2);

	if (!text)
		abort();
	sprintf(text + have, "%s%s", have ? " " : "", word);
	args->filter = text;
}

static void args_check(struct argp_state *argp, const struct args *args)
{
	const struct dump_out_spec *out = &args->out;

	if ((args->instance != NULL) + (args->config != NULL) + (args->socket != NULL) > 1)
		argp_error(argp, "one of -i, --config and --socket");
	if (!out->path && (out->size_max || out->interval_s || out->file_count))
		argp_error(argp, "-C, -G and -W are about files: they need -w FILE");
	if (out->path && !strcmp(out->path, "-") && (out->size_max || out->interval_s))
		argp_error(
		        argp, "standard output cannot be followed by another file: -C and -G need -w FILE");
	if (out->file_count && !out->size_max && !out->interval_s)
		argp_error(argp, "-W says what -C or -G shall do: one of them is missing");
	if (out->path && out->flag_count)
		argp_error(argp, "-%c is about printing, and -w writes a file", out->flags[0][1]);
}

static error_t option_parse(int key, char *arg, struct argp_state *argp)
{
	struct args *args = argp->input;
	struct dump_out_spec *out = &args->out;

	switch (key) {
	case 'i':
		args->instance = arg;
		return 0;
	case OPT_CONFIG:
		args->config = arg;
		return 0;
	case OPT_SOCKET:
		args->socket = arg;
		return 0;
	case 'D':
		args->list = true;
		return 0;
	case 'Q':
		args->directions = !strcmp(arg, "in")      ? CAPTURE_IN
		                   : !strcmp(arg, "out")   ? CAPTURE_OUT
		                   : !strcmp(arg, "inout") ? CAPTURE_IN | CAPTURE_OUT
		                                           : 0;
		if (!args->directions)
			argp_error(argp, "-Q: \"%s\" (allowed: in, out, inout)", arg);
		return 0;
	case 'q':
		args->queues = queue_bits(argp, arg);
		return 0;
	case 's':
		args->snap_size = (uint32_t)number(argp, "-s", arg, 0, CAPTURE_SNAP_MAX);
		return 0;
	case 'c':
		args->packet_count = number(argp, "-c", arg, 1, UINT64_MAX);
		return 0;
	case 'B':
		args->ring_kb =
		        (uint32_t)number(argp, "-B", arg, CAPTURE_RING_MIN >> 10, CAPTURE_RING_MAX >> 10);
		return 0;
	case 'd':
		args->show_code = true;
		return 0;
	case 'w':
		if (!arg[0])
			argp_error(argp, "-w: the name is empty");
		out->path = arg;
		return 0;
	case 'C':
		out->size_max = file_size(argp, arg);
		return 0;
	case 'G':
		out->interval_s = (uint32_t)number(argp, "-G", arg, 1, 365 * 86400);
		return 0;
	case 'W':
		out->file_count = (uint32_t)number(argp, "-W", arg, 1, 1000000);
		return 0;
	case 'n':
	case 'e':
	case 'v':
	case 'x':
	case 'X':
	case 'A':
	case 't':
		if (out->flag_count == DUMP_OUT_FLAGS_MAX)
			argp_error(argp, "too many options for tcpdump");
		snprintf(args->flags[out->flag_count], sizeof(args->flags[0]), "-%c", key);
		out->flags[out->flag_count] = args->flags[out->flag_count];
		out->flag_count++;
		return 0;
	case ARGP_KEY_ARG:
		filter_add(args, arg);
		return 0;
	case ARGP_KEY_END:
		args_check(argp, args);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp argp = {options, option_parse, "[FILTER...]",
        "Captures the packets of a running Pronk service: writes them to pcapng files, or has tcpdump print them."
        "\vFILTER is an expression in tcpdump's language, see pcap-filter(7). Examples:\n\n"
        "  pronk-dump -n tcp port 6379\n"
        "  pronk-dump -w - | wireshark -k -i -\n"
        "  pronk-dump -w trace -C 100 -W 10 host 192.0.2.7\n\n"
        "Only root and the service's user may capture.",
        NULL, NULL, NULL};

static int complain(int rc, const char *text)
{
	fprintf(stderr, "pronk-dump: %s\n", text);
	return rc;
}

/* --- which service --- */

/* RUNTIME_DIR/NAME.sock, else the socket of the only service of that name. */
static int name_find(const char *name, char *path, size_t size)
{
	static struct instance list[LOCATE_MAX];
	struct where where = {.name = name};
	uint32_t count = instances_find(list, LOCATE_MAX, &where), named = 0;
	char err[ERR_SIZE] = "", usual[CFG_PATH_MAX + LOCATE_NAME_SIZE] = "";
	struct cfg cfg;

	if (!cfg_load(&cfg, cfg_default_path(), err, sizeof(err)))
		snprintf(usual, sizeof(usual), "%s/%s.sock", cfg.runtime_dir, name);
	for (uint32_t i = 0; i < count; i++) {
		if (strcmp(list[i].name, name) != 0 || list[i].is_gone || list[i].is_foreign)
			continue;
		named++;
		snprintf(path, size, "%s", list[i].socket);
		if (!strcmp(path, usual))
			return 0;
	}
	if (named == 1)
		return 0;
	if (named)
		snprintf(err, sizeof(err), "%u services are named \"%s\": give -i the socket (pronk-dump -D)",
		        named, name);
	else
		snprintf(err, sizeof(err), "no service named \"%.64s\" runs that this user may see", name);
	return complain(-ENOENT, err);
}

static int socket_find(const struct args *args, char *path, size_t size)
{
	const char *config = args->config, *name = args->instance;
	char err[ERR_SIZE] = "";
	struct stat st;
	struct cfg cfg;

	if (name && !strchr(name, '/'))
		return name_find(name, path, size);
	if (name) {
		if (stat(name, &st) < 0)
			snprintf(err, sizeof(err), "-i: %s: %s", name, strerror(errno));
		else if (!S_ISSOCK(st.st_mode) && !S_ISREG(st.st_mode))
			snprintf(err, sizeof(err), "-i: %s is neither a socket nor a configuration file",
			        name);
		if (err[0])
			return complain(-EINVAL, err);
		config = name;
	}
	if (args->socket || (name && S_ISSOCK(st.st_mode))) {
		if (snprintf(path, size, "%s", args->socket ? args->socket : name) < (int)size)
			return 0;
		return complain(-ENAMETOOLONG, "the path of the socket is too long");
	}
	if (cfg_load(&cfg, config ? config : cfg_default_path(), err, sizeof(err)))
		return complain(-EINVAL, err);
	cfg_socket_path(&cfg, path, size);
	return 0;
}

/* --- what is asked for --- */

static uint32_t ring_size(uint32_t kb)
{
	uint32_t size = CAPTURE_RING_MIN;

	while (size < kb << 10)
		size *= 2;
	return size;
}

/* The request, with the filter compiled. NULL after a message. */
static struct capture_spec *spec_make(const struct args *args)
{
	uint32_t snap_size = args->snap_size ? args->snap_size : CAPTURE_SNAP_MAX;
	pcap_t *pcap = pcap_open_dead(DLT_EN10MB, (int)snap_size);
	struct bpf_program code = {0};
	struct capture_spec *spec = NULL;

	if (!pcap) {
		complain(-ENOMEM, "out of memory");
		return NULL;
	}
	if (args->filter && pcap_compile(pcap, &code, args->filter, 1, PCAP_NETMASK_UNKNOWN) < 0) {
		fprintf(stderr, "pronk-dump: filter \"%s\": %s\n", args->filter, pcap_geterr(pcap));
	} else if (code.bf_len > CAPTURE_INSN_MAX) {
		fprintf(stderr, "pronk-dump: the filter has %u instructions (allowed: up to %d)\n",
		        code.bf_len, CAPTURE_INSN_MAX);
	} else {
		if (args->show_code)
			bpf_dump(&code, 1);
		spec = calloc(1, sizeof(*spec) + code.bf_len * sizeof(spec->insn[0]));
		if (!spec)
			complain(-ENOMEM, "out of memory");
	}
	if (spec) {
		spec->magic = CAPTURE_MAGIC;
		spec->snap_size = snap_size;
		spec->directions = args->directions;
		spec->queues = args->queues;
		spec->ring_size = ring_size(args->ring_kb);
		spec->insn_count = code.bf_len;
		if (code.bf_len)
			memcpy(spec->insn, code.bf_insns, code.bf_len * sizeof(spec->insn[0]));
	}
	pcap_freecode(&code);
	pcap_close(pcap);
	return spec;
}

/* --- the loop --- */

static void counts_print(void)
{
	struct capture_shm *shm = atomic_load(&state.shm);
	uint64_t matched, dropped;

	if (!shm)
		return;
	dump_out_counts(shm, &matched, &dropped);
	fprintf(stderr,
	        "%llu packets captured\n%llu packets received by filter\n%llu packets dropped by the capture\n",
	        (unsigned long long)atomic_load(&state.captured), (unsigned long long)matched,
	        (unsigned long long)dropped);
}

static void *signal_thread(void *arg)
{
	sigset_t *set = arg;
	int sig;

	for (;;) {
		struct capture_shm *shm;

		if (sigwait(set, &sig))
			continue;
		if (sig == SIGUSR1) {
			counts_print();
			continue;
		}
		/* the second time somebody is in earnest: the output may take nothing any more */
		if (atomic_exchange(&state.is_over, true))
			_exit(1);
		shm = atomic_load(&state.shm);
		if (shm)
			capture_wake(shm);
	}
	return NULL;
}

static int signals_start(sigset_t *set)
{
	pthread_t thread;

	sigemptyset(set);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGHUP);
	sigaddset(set, SIGUSR1);
	sigprocmask(SIG_BLOCK, set, NULL);
	signal(SIGPIPE, SIG_IGN);
	return pthread_create(&thread, NULL, signal_thread, set);
}

/* The oldest packet of all rings. */
static struct capture_reader *oldest(
        struct capture_reader *readers, uint32_t count, const struct capture_record **record)
{
	struct capture_reader *first = NULL;

	*record = NULL;
	for (uint32_t i = 0; i < count; i++) {
		const struct capture_record *r = capture_peek(&readers[i]);

		if (r && (!*record || r->time_ns < (*record)->time_ns)) {
			*record = r;
			first = &readers[i];
		}
	}
	return first;
}

static void release(struct capture_reader *readers, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		capture_release(&readers[i]);
}

/* Writes what is in the rings, at most max packets. Their number, or -E after a message. */
static int64_t drain(const struct args *args, struct capture_shm *shm, struct capture_reader *readers,
        struct dump_out *out, uint64_t max)
{
	const struct capture_record *record;
	struct capture_reader *reader;
	char err[ERR_SIZE] = "";
	uint64_t count = 0;
	int rc = 0;

	while (count < max && (reader = oldest(readers, shm->queue_count, &record))) {
		rc = dump_out_add(out, record, shm, err, sizeof(err));
		if (rc)
			break;
		capture_take(reader, record);
		if (++count % RELEASE == 0)
			release(readers, shm->queue_count);
		if (atomic_fetch_add(&state.captured, 1) + 1 == args->packet_count) {
			atomic_store(&state.is_over, true);
			break;
		}
	}
	release(readers, shm->queue_count);
	if (!rc)
		rc = dump_out_flush(out, err, sizeof(err));
	if (rc == 1)
		atomic_store(&state.is_over, true);
	if (rc < 0)
		return complain(rc, err);
	return (int64_t)count;
}

static int run(const struct args *args, const struct wiretap *d, struct dump_out *out)
{
	const struct timespec nap = {.tv_nsec = NAP_US * 1000};
	struct capture_reader readers[CAPTURE_QUEUE_MAX];
	uint64_t most = 0;
	bool is_gone = false;
	int64_t n = 0;

	for (uint32_t i = 0; i < d->shm->queue_count && i < CAPTURE_QUEUE_MAX; i++)
		capture_reader_init(&readers[i], d->shm, i);
	while (!atomic_load(&state.is_over) && !is_gone) {
		is_gone = !wiretap_is_alive(d);
		n = drain(args, d->shm, readers, out, 4096);
		if (n < 0)
			return (int)n;
		if (n)
			nanosleep(&nap, NULL);
		else if (!is_gone)
			capture_wait(d->shm, readers, d->shm->queue_count, IDLE_MS);
	}
	if (is_gone)
		complain(0, "the service has ended");
	/* what was there when the end was called for, and not what still comes */
	for (uint32_t i = 0; i < d->shm->queue_count; i++)
		most += d->shm->ring_size / sizeof(struct capture_record);
	if (args->packet_count) {
		uint64_t captured = atomic_load(&state.captured);

		most = captured >= args->packet_count ? 0 : args->packet_count - captured;
	}
	n = most ? drain(args, d->shm, readers, out, most) : 0;
	return n < 0 ? (int)n : 0;
}

static int capture(struct args *args, const struct capture_spec *spec, const char *path)
{
	struct dump_out_spec *to = &args->out;
	char err[ERR_SIZE] = "";
	struct dump_out *out;
	struct wiretap d;
	int rc, end;

	if (pcapng_start(err, sizeof(err)))
		return complain(-EIO, err);
	rc = wiretap_open(&d, path, spec, err, sizeof(err));
	if (rc) {
		complain(rc, err);
		goto stop;
	}
	memcpy(to->mac, d.shm->mac, sizeof(to->mac));
	snprintf(to->comment, sizeof(to->comment), "Pronk's device %.127s; filter: %.500s", d.shm->device,
	        args->filter ? args->filter : "none");
	out = dump_out_open(to, err, sizeof(err));
	if (!out) {
		rc = complain(-EIO, err);
		goto close;
	}
	atomic_store(&state.shm, d.shm);
	fprintf(stderr, "pronk-dump: capturing on %s, %s %s\n", d.shm->device,
	        to->path ? "writing to" : "printed by", to->path ? to->path : "tcpdump");
	rc = run(args, &d, out);
	end = dump_out_close(out, d.shm, err, sizeof(err));
	if (end && !rc)
		rc = complain(end, err);
	counts_print();
	atomic_store(&state.shm, NULL);
close:
	wiretap_close(&d);
stop:
	pcapng_stop();
	return rc;
}

int main(int argc, char **argv)
{
	struct args args = {.directions = CAPTURE_IN | CAPTURE_OUT, .queues = UINT32_MAX, .ring_kb = RING_KB};
	char path[CFG_SOCKET_PATH_MAX];
	struct capture_spec *spec;
	sigset_t set;
	int rc;

	argp_parse(&argp, argc, argv, 0, NULL, &args);
	libc_init();
	spec = spec_make(&args);
	if (!spec)
		return 1;
	if (args.list)
		rc = show_instances(&(struct where){.config = args.config}, false);
	else
		rc = args.show_code ? 0 : socket_find(&args, path, sizeof(path));
	if (!rc && args.out.path && !strcmp(args.out.path, "-") && isatty(STDOUT_FILENO))
		rc = complain(-EINVAL, "standard output is a terminal: -w - is for a pipe or a file");
	if (!rc && !args.show_code && !args.list) {
		if (signals_start(&set))
			rc = complain(-EAGAIN, "no thread for signals");
		else
			rc = capture(&args, spec, path);
	}
	free(spec);
	free(args.filter);
	return rc ? 1 : 0;
}
