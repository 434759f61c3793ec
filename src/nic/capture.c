/* capture.c - the tap: copies what passes a queue to who captures it. The other end of nothing here is
 * trusted.
 *
 * capture_burst runs in the queue's thread, for a queue that somebody captures from; everything else in the
 * control thread. A capture is a slot of struct nic; a bit in nic_queue.captures says that the queue's thread
 * uses it. Its end has the usual three steps: the bits are cleared, every stack passes a point, the slot is
 * freed. The rings are base/capture.c's, the file format is pcapng/'s.
 *
 * A received frame is captured where the port gave it, before anything looked at it; a frame to be sent when
 * it is offered to the port for the first time, with everything in it that this host puts in.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <pcap/bpf.h>

#include "capture.h"
#include "clock.h"
#include "log.h"
#include "nic_int.h"

LOG_MODULE("nic");

_Static_assert(sizeof(struct capture_insn) == sizeof(struct bpf_insn), "the same instruction");
_Static_assert((int)CAPTURE_QUEUE_MAX == (int)NIC_STACK_MAX, "one ring per stack");

enum { CHAIN_MAX = 65536 };

/* In a slot of struct nic. */
struct nic_capture {
	/* constant */
	uint32_t directions, snap_size;
	struct bpf_insn *filter; /* NULL: every frame */
	struct capture_shm *shm;
	size_t shm_size;
	/* each its queue's thread */
	uint8_t *whole; /* CHAIN_MAX bytes for each; NULL without a filter */
	struct capture_writer writer[NIC_STACK_MAX];
};

/* --- the queue's thread --- */

static void frame_copy(uint8_t *to, const struct rte_mbuf *m, uint32_t size)
{
	while (size != 0) {
		uint32_t part = RTE_MIN(size, (uint32_t)m->data_len);

		memcpy(to, rte_pktmbuf_mtod(m, const uint8_t *), part);
		to += part;
		size -= part;
		m = m->next;
	}
}

/* A filter may look anywhere into a frame, and wants it in one piece. */
static bool is_chain_wanted(const struct nic_capture *c, const struct rte_mbuf *m, uint8_t *whole)
{
	uint32_t size = RTE_MIN(m->pkt_len, (uint32_t)CHAIN_MAX);

	frame_copy(whole, m, size);
	return bpf_filter(c->filter, whole, m->pkt_len, size) != 0;
}

static bool is_wanted(const struct nic_capture *c, const struct rte_mbuf *m, uint32_t stack_idx)
{
	if (c->filter == NULL)
		return true;
	if (unlikely(m->nb_segs > 1))
		return is_chain_wanted(c, m, c->whole + (size_t)stack_idx * CHAIN_MAX);
	return bpf_filter(c->filter, rte_pktmbuf_mtod(m, const u_char *), m->pkt_len, m->data_len) != 0;
}

static void burst_put(struct nic_capture *c, struct nic_queue *q, struct rte_mbuf **m, uint32_t count,
        uint32_t direction, uint64_t now_ns)
{
	struct capture_writer *w = &c->writer[q->stack_idx];
	uint64_t matched = w->matched;

	for (uint32_t i = 0; i < count; i++) {
		uint32_t size = RTE_MIN(m[i]->pkt_len, c->snap_size);
		struct capture_record *record;

		if (!is_wanted(c, m[i], q->stack_idx))
			continue;
		record = capture_put(w, size);
		if (record == NULL)
			continue;
		record->wire_size = m[i]->pkt_len;
		record->direction = (uint16_t)direction;
		record->queue = (uint16_t)q->stack_idx;
		record->time_ns = now_ns;
		frame_copy((uint8_t *)(record + 1), m[i], size);
	}
	if (w->matched != matched)
		capture_publish(w);
}

void capture_burst(struct nic_queue *q, struct rte_mbuf **m, uint32_t count, uint32_t direction)
{
	uint32_t bits = atomic_load_explicit(&q->captures, memory_order_acquire);
	uint64_t now_ns = clock_wall_ns();

	while (bits != 0) {
		struct nic_capture *c = q->nic->capture[__builtin_ctz(bits)];

		bits &= bits - 1;
		if (c->directions & direction)
			burst_put(c, q, m, count, direction, now_ns);
	}
}

/* --- the control thread --- */

static void capture_destroy(struct nic_capture *c)
{
	if (c == NULL)
		return;
	free(c->filter);
	free(c->whole);
	if (c->shm != NULL)
		munmap(c->shm, c->shm_size);
	free(c);
}

/* libpcap's bpf_validate lets instructions pass at which its interpreter ends the process. */
static bool is_known(uint16_t code)
{
	static const uint16_t known[] = {BPF_RET | BPF_K, BPF_RET | BPF_A, BPF_LD | BPF_W | BPF_ABS,
	        BPF_LD | BPF_H | BPF_ABS, BPF_LD | BPF_B | BPF_ABS, BPF_LD | BPF_W | BPF_IND,
	        BPF_LD | BPF_H | BPF_IND, BPF_LD | BPF_B | BPF_IND, BPF_LD | BPF_W | BPF_LEN,
	        BPF_LDX | BPF_W | BPF_LEN, BPF_LDX | BPF_MSH | BPF_B, BPF_LD | BPF_IMM, BPF_LDX | BPF_IMM,
	        BPF_LD | BPF_MEM, BPF_LDX | BPF_MEM, BPF_ST, BPF_STX, BPF_JMP | BPF_JA, BPF_ALU | BPF_NEG,
	        BPF_MISC | BPF_TAX, BPF_MISC | BPF_TXA};
	static const uint16_t jump[] = {BPF_JGT, BPF_JGE, BPF_JEQ, BPF_JSET};
	static const uint16_t alu[] = {
	        BPF_ADD, BPF_SUB, BPF_MUL, BPF_DIV, BPF_MOD, BPF_AND, BPF_OR, BPF_XOR, BPF_LSH, BPF_RSH};
	uint16_t plain = code & (uint16_t)~BPF_X; /* operand from the register or the instruction */

	for (size_t i = 0; i < ARRAY_COUNT(known); i++)
		if (code == known[i])
			return true;
	for (size_t i = 0; i < ARRAY_COUNT(jump); i++)
		if (plain == (BPF_JMP | jump[i]))
			return true;
	for (size_t i = 0; i < ARRAY_COUNT(alu); i++)
		if (plain == (BPF_ALU | alu[i]))
			return true;
	return false;
}

/* libpcap's own interpreter runs the filter: DPDK's (22.11) finds no packet for "tcp[13] & 2 != 0", and the
 * machine code that it makes of such a program crashes. */
static int filter_load(struct nic_capture *c, const struct capture_spec *spec, uint32_t stack_count,
        char *err, size_t err_size)
{
	size_t size = spec->insn_count * sizeof(spec->insn[0]);

	if (size == 0)
		return 0;
	c->filter = malloc(size);
	c->whole = calloc(stack_count, CHAIN_MAX);
	if (c->filter == NULL || c->whole == NULL)
		return nic_fail(err, err_size, -ENOMEM, "no memory");
	memcpy(c->filter, spec->insn, size);
	for (uint32_t i = 0; i < spec->insn_count; i++) {
		if (!is_known(spec->insn[i].code))
			return nic_fail(err, err_size, -EINVAL,
			        "the filter is no valid program: instruction %u has code 0x%x", i,
			        spec->insn[i].code);
		/* bpf_validate lets these pass, too: a stack must not go round in circles */
		if (spec->insn[i].code == (BPF_JMP | BPF_JA) && spec->insn[i].k >= spec->insn_count - i)
			return nic_fail(err, err_size, -EINVAL,
			        "the filter jumps back at instruction %u (protochain is not possible here)",
			        i);
	}
	if (bpf_validate(c->filter, (int)spec->insn_count))
		return 0;
	return nic_fail(err, err_size, -EINVAL, "the filter is no valid program");
}

/* Memory that cannot be made smaller by who gets it, all of it there: a stack must not wait for it, nor end
 * for want of it. */
static int shm_open_new(struct nic_capture *c, const struct capture_spec *spec, const struct nic *nic)
{
	int fd = memfd_create("pronk-capture", MFD_CLOEXEC | MFD_ALLOW_SEALING), code;
	void *p = MAP_FAILED;

	c->shm_size = capture_shm_size(nic->stack_count, spec->ring_size);
	if (fd >= 0 && ftruncate(fd, (off_t)c->shm_size) == 0 &&
	        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0 &&
	        fallocate(fd, 0, 0, (off_t)c->shm_size) == 0)
		p = mmap(NULL, c->shm_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (p == MAP_FAILED) {
		code = -errno;
		if (fd >= 0)
			close(fd);
		return code;
	}
	c->shm = p;
	capture_shm_init(c->shm, nic->stack_count, spec->ring_size, nic->info.name, nic->info.mac);
	for (uint32_t i = 0; i < nic->stack_count; i++)
		capture_writer_init(&c->writer[i], c->shm, i);
	return fd;
}

int nic_capture_start(
        struct nic *nic, const struct capture_spec *spec, int *shm_fd, char *err, size_t err_size)
{
	uint32_t queues = (1u << nic->stack_count) - 1, slot = 0;
	struct nic_capture *c;
	int fd, ret;

	if (spec->queues != UINT32_MAX && spec->queues & ~queues)
		return nic_fail(err, err_size, -EINVAL, "there is no stack %d (allowed: 0 to %u)",
		        31 - __builtin_clz(spec->queues), nic->stack_count - 1);
	while (slot < NIC_CAPTURE_MAX && nic->capture[slot] != NULL)
		slot++;
	if (slot == NIC_CAPTURE_MAX)
		return nic_fail(err, err_size, -EBUSY, "%d captures are under way already", NIC_CAPTURE_MAX);
	c = aligned_alloc(PRONK_CACHE_LINE, RTE_ALIGN_CEIL(sizeof(*c), (size_t)PRONK_CACHE_LINE));
	if (c == NULL)
		return nic_fail(err, err_size, -ENOMEM, "no memory");
	memset(c, 0, sizeof(*c));
	c->directions = spec->directions;
	c->snap_size = spec->snap_size;
	ret = filter_load(c, spec, nic->stack_count, err, err_size);
	if (ret != 0)
		goto fail;
	fd = shm_open_new(c, spec, nic);
	if (fd < 0) {
		ret = nic_fail(err, err_size, fd, "no memory for %u rings of %u KB: %s", nic->stack_count,
		        spec->ring_size >> 10, strerror(-fd));
		goto fail;
	}
	nic->capture[slot] = c;
	for (uint32_t i = 0; i < nic->stack_count; i++)
		if (spec->queues & 1u << i)
			atomic_fetch_or_explicit(&nic->queues[i].captures, 1u << slot, memory_order_release);
	*shm_fd = fd;
	return (int)slot;
fail:
	capture_destroy(c);
	return ret;
}

void nic_capture_stop(struct nic *nic, uint32_t capture)
{
	for (uint32_t i = 0; i < nic->stack_count; i++)
		atomic_fetch_and_explicit(&nic->queues[i].captures, ~(1u << capture), memory_order_release);
}

void nic_capture_free(struct nic *nic, uint32_t capture)
{
	capture_destroy(nic->capture[capture]);
	nic->capture[capture] = NULL;
}
