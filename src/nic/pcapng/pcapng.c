/* pcapng.c - the writer of capture files, for pronk-dump: DPDK's library behind a few functions.
 *
 * One thread. The library stamps packets with the processor's counter, whose rate DPDK knows to 10 MHz only
 * where it has to measure it: a second in ten minutes. So the time at which the stack saw the packet is put
 * into each block (its place is fixed by the format) before the block goes out.
 */
#define ALLOW_EXPERIMENTAL_API /* rte_pcapng: as such in DPDK 22.11 */
#include "pcapng.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <rte_bus_vdev.h>
#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_pcapng.h>
#include <rte_version.h>

#include "clock.h"

/* DPDK 23.11 converts a block's stamp when it is written, and has other arguments. */
#define STAMP_LATER (RTE_VERSION >= RTE_VERSION_NUM(23, 11, 0, 0))

enum {
	BATCH = 32,
	ROOM = 64 * 1023, /* of a buffer: the longest frame there is, and what the format puts around it */
	FRAME_MAX = ROOM - RTE_PKTMBUF_HEADROOM - 64,
	STAMP_AT = 12, /* of the block: upper half, lower half */
	MEMORY_MB = 64,
};

struct pcapng {
	rte_pcapng_t *writer;
	int fd;
	uint64_t size;
	struct rte_mbuf *batch[BATCH];
	uint32_t batch_count, batch_size;
	uint64_t base_tsc, base_ns; /* about the writer's own */
};

static struct {
	uint16_t port;
	struct rte_mempool *pool;
	struct rte_mbuf *shell; /* refers to the packet being added */
	struct rte_mbuf_ext_shared_info shell_info;
	char complaint[128];
} lib;

/* What DPDK says is of interest when it does not start. */
static ssize_t message_write(void *cookie, const char *text, size_t size)
{
	(void)cookie;
	if (!lib.complaint[0] && rte_log_cur_msg_loglevel() <= (int)RTE_LOG_ERR)
		snprintf(lib.complaint, sizeof(lib.complaint), "%.*s", (int)strcspn(text, "\n"), text);
	return (ssize_t)size;
}

static void never_freed(void *addr, void *opaque)
{
	(void)addr;
	(void)opaque;
}

static int fail(char *err, size_t err_size, int code, const char *what)
{
	snprintf(err, err_size, "%s: %s", what, lib.complaint[0] ? lib.complaint : rte_strerror(-code));
	return code;
}

static int eal_begin(char *err, size_t err_size)
{
	cookie_io_functions_t io = {.write = message_write};
	char prefix[48], cores[32], memory[16], folder[128];
	char *argv[] = {"pronk-dump", "--no-shconf", "--no-huge", "--no-pci", "--no-telemetry",
	        "--iova-mode=va", "-m", memory, prefix, "--lcores", cores, "--vdev=net_null0", NULL};
	FILE *messages = fopencookie(NULL, "w", io);
	cpu_set_t cpus;
	int core = 0, rc;

	if (messages) {
		setvbuf(messages, NULL, _IOLBF, 0);
		rte_openlog_stream(messages);
	}
	if (sched_getaffinity(0, sizeof(cpus), &cpus) < 0)
		return fail(err, err_size, -errno, "cannot read the allowed cores");
	while (core < CPU_SETSIZE - 1 && !CPU_ISSET(core, &cpus))
		core++;
	snprintf(prefix, sizeof(prefix), "--file-prefix=pronk-dump-%d", (int)getpid());
	snprintf(cores, sizeof(cores), "0@%d", core);
	snprintf(memory, sizeof(memory), "%d", MEMORY_MB);
	rc = rte_eal_init((int)(sizeof(argv) / sizeof(argv[0])) - 1, argv);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	if (rc < 0)
		return fail(err, err_size, rte_errno ? -rte_errno : -EIO, "DPDK does not start");
	snprintf(folder, sizeof(folder), "%s", rte_eal_get_runtime_dir());
	rmdir(folder); /* made even by those who keep nothing in it */
	return 0;
}

int pcapng_start(char *err, size_t err_size)
{
	int rc = eal_begin(err, err_size);

	if (rc)
		return rc;
	if (rte_eth_dev_get_port_by_name("net_null0", &lib.port))
		return fail(err, err_size, -ENODEV, "DPDK's net_null driver is missing (librte-net-null)");
	lib.pool = rte_pktmbuf_pool_create("blocks", 2 * BATCH, 0, 0, ROOM, SOCKET_ID_ANY);
	if (lib.pool)
		lib.shell = rte_pktmbuf_alloc(lib.pool);
	if (!lib.shell)
		return fail(err, err_size, -ENOMEM, "no memory for packets");
	lib.shell_info.free_cb = never_freed;
	rte_mbuf_ext_refcnt_set(&lib.shell_info, 1);
	return 0;
}

void pcapng_stop(void)
{
	rte_eal_cleanup();
}

struct pcapng *pcapng_open(int fd, const uint8_t mac[6], const char *application, const char *comment,
        char *err, size_t err_size)
{
	struct rte_ether_addr addr;
	struct pcapng *file = calloc(1, sizeof(*file));
	off_t size;

	if (!file) {
		snprintf(err, err_size, "out of memory");
		close(fd);
		return NULL;
	}
	memcpy(addr.addr_bytes, mac, sizeof(addr.addr_bytes));
	rte_eth_dev_default_mac_addr_set(lib.port, &addr);
	file->fd = fd;
	file->base_tsc = rte_get_tsc_cycles();
	file->base_ns = clock_wall_ns();
	errno = rte_errno = 0;
	file->writer = rte_pcapng_fdopen(fd, NULL, NULL, application, comment);
#if STAMP_LATER
	if (file->writer && rte_pcapng_add_interface(file->writer, lib.port, NULL, NULL, NULL) < 0) {
		rte_pcapng_close(file->writer);
		file->writer = NULL;
		fd = -1;
	}
#endif
	if (!file->writer) {
		fail(err, err_size,
		        errno       ? -errno
		        : rte_errno ? -rte_errno
		                    : -EIO,
		        "the file's beginning cannot be written");
		if (fd >= 0)
			close(fd);
		free(file);
		return NULL;
	}
	size = lseek(fd, 0, SEEK_CUR);
	file->size = size > 0 ? (uint64_t)size : 0;
	return file;
}

static struct rte_mbuf *block_make(const struct pcapng *file UNUSED, const struct capture_record *record)
{
	enum rte_pcapng_direction direction =
	        record->direction == CAPTURE_IN ? RTE_PCAPNG_DIRECTION_IN : RTE_PCAPNG_DIRECTION_OUT;
	uint32_t size = RTE_MIN(record->cap_size, (uint32_t)FRAME_MAX);
	uint64_t stamp = record->time_ns;
	struct rte_mbuf *block;
	uint32_t half[2];

	rte_pktmbuf_attach_extbuf(
	        lib.shell, (void *)(uintptr_t)(record + 1), RTE_BAD_IOVA, (uint16_t)size, &lib.shell_info);
	lib.shell->data_off = 0;
	lib.shell->data_len = (uint16_t)size;
	lib.shell->pkt_len = record->wire_size; /* what the block calls its original length */
#if STAMP_LATER
	block = rte_pcapng_copy(lib.port, record->queue, lib.shell, lib.pool, size, direction, NULL);
	stamp = stamp < file->base_ns ? 0 : stamp - file->base_ns;
	stamp = file->base_tsc + (uint64_t)((unsigned __int128)stamp * rte_get_tsc_hz() / CLOCK_NS_PER_S);
#else
	block = rte_pcapng_copy(
	        lib.port, record->queue, lib.shell, lib.pool, size, rte_get_tsc_cycles(), direction);
#endif
	if (!block)
		return NULL;
	half[0] = (uint32_t)(stamp >> 32);
	half[1] = (uint32_t)stamp;
	memcpy(rte_pktmbuf_mtod_offset(block, uint8_t *, STAMP_AT), half, sizeof(half));
	return block;
}

int pcapng_add(struct pcapng *file, const struct capture_record *record)
{
	struct rte_mbuf *block;

	if (file->batch_count == BATCH) {
		int rc = pcapng_flush(file);

		if (rc)
			return rc;
	}
	block = block_make(file, record);
	if (!block)
		return -ENOMEM;
	file->batch[file->batch_count++] = block;
	file->batch_size += block->pkt_len;
	file->size += block->pkt_len;
	return 0;
}

int pcapng_flush(struct pcapng *file)
{
	uint32_t count = file->batch_count, size = file->batch_size, had = rte_mempool_avail_count(lib.pool);
	ssize_t n;
	int rc;

	if (!count)
		return 0;
	file->batch_count = file->batch_size = 0;
	errno = 0;
	n = rte_pcapng_write_packets(file->writer, file->batch, (uint16_t)count);
	rc = n < 0 && errno ? -errno : -ENOSPC; /* a part of it only: there is no room for the rest */
	/* the library's header says that it frees them, and 22.11 does not */
	if (rte_mempool_avail_count(lib.pool) == had)
		rte_pktmbuf_free_bulk(file->batch, count);
	return n == (ssize_t)size ? 0 : rc;
}

uint64_t pcapng_size(const struct pcapng *file)
{
	return file->size;
}

int pcapng_stats(struct pcapng *file, uint64_t matched, uint64_t dropped)
{
	int rc = pcapng_flush(file);
	ssize_t n;

	if (rc)
		return rc;
	errno = 0;
#if STAMP_LATER
	n = rte_pcapng_write_stats(file->writer, lib.port, matched, dropped, NULL);
#else
	/* begin and end are left out: it writes the halves of the two times the wrong way round */
	n = rte_pcapng_write_stats(file->writer, lib.port, NULL, 0, 0, matched, dropped);
#endif
	return n > 0 ? 0 : errno ? -errno : -EIO;
}

int pcapng_close(struct pcapng *file)
{
	int rc;

	if (!file)
		return 0;
	rc = pcapng_flush(file);
	rte_pcapng_close(file->writer);
	free(file);
	return rc;
}
