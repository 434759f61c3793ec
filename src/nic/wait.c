/* wait.c - descriptors that a stack sleeps on until its queue has frames.
 *
 * Found on the control thread while the port is set up; constant after that; armed by the queue's thread. The
 * virtual drivers offer no RX interrupt, but each receives from a descriptor of this process, which is found
 * by comparing /proc/self/fd before and after the driver call that opens it. What was verified for each
 * (DPDK 22.11):
 *
 *	tap       the queue's /dev/net/tun descriptor is readable while a packet waits
 *	afpacket  the packet socket is readable while the ring's last frame is not consumed; also after an
 *		  error, which must be read away or it wakes forever (nic_wait_arm does)
 *	afxdp     the XDP socket is readable while its receive ring is not empty
 *	memif     the ring's interrupt, which the driver keeps masked: memif.c
 *	(no hardware queue)  a descriptor that never becomes readable: such a stack is only ever woken by
 *others PCI       the driver's RX interrupt, when it has one: its eventfd must be armed, and drained after
 */
#include <dirent.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nic_int.h"

#ifndef AF_XDP
#define AF_XDP 44
#endif

static int fd_compare(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

void wait_snapshot(struct wait_fds *fds)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;

	fds->count = 0;
	if (dir == NULL)
		return;
	while ((entry = readdir(dir)) != NULL && fds->count < WAIT_FD_MAX) {
		int fd = atoi(entry->d_name);

		if (entry->d_name[0] != '.' && fd != dirfd(dir))
			fds->fd[fds->count++] = fd;
	}
	closedir(dir);
	qsort(fds->fd, fds->count, sizeof(fds->fd[0]), fd_compare);
}

/* Whether fd is what the driver of this kind receives from. */
static bool fd_matches(enum device_kind kind, int fd)
{
	char path[32], target[32] = "";
	int domain = 0;
	socklen_t size = sizeof(domain);

	if (kind == DEVICE_TAP) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		return readlink(path, target, sizeof(target) - 1) > 0 && strcmp(target, "/dev/net/tun") == 0;
	}
	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 &&
	       domain == (kind == DEVICE_AFXDP ? AF_XDP : AF_PACKET);
}

int wait_find(enum device_kind kind, const struct wait_fds *before, uint32_t skip)
{
	struct wait_fds now;

	if (kind != DEVICE_TAP && kind != DEVICE_AFPACKET && kind != DEVICE_AFXDP)
		return -1;
	wait_snapshot(&now);
	for (uint32_t i = 0; i < now.count; i++) {
		if (bsearch(&now.fd[i], before->fd, before->count, sizeof(int), fd_compare) != NULL)
			continue;
		if (fd_matches(kind, now.fd[i]) && skip-- == 0)
			return now.fd[i];
	}
	return -1;
}

void wait_filter_outgoing(int fd)
{
	struct sock_filter code[] = {
	        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_PKTTYPE)),
	        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_OUTGOING, 0, 1),
	        BPF_STMT(BPF_RET | BPF_K, 0),
	        BPF_STMT(BPF_RET | BPF_K, 0x7fffffff),
	};
	struct sock_fprog program = {.len = ARRAY_COUNT(code), .filter = code};

	setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));
}

uint32_t nic_wait_fds(struct nic_queue *q, int *fds, uint32_t max)
{
	if (q->wait_fd < 0 || max == 0)
		return 0;
	fds[0] = q->wait_fd;
	return 1;
}

void nic_wait_arm(struct nic_queue *q, bool on)
{
	uint64_t count;
	int error;
	socklen_t size = sizeof(error);

	if (q->link_polled) {
		memif_wait_arm(q, on);
	} else if (q->wait_intr) {
		if (on) {
			rte_eth_dev_rx_intr_enable(q->port, q->hw);
		} else {
			rte_eth_dev_rx_intr_disable(q->port, q->hw);
			(void)!read(q->wait_fd, &count, sizeof(count));
		}
	} else if (on && q->nic->device.kind == DEVICE_AFPACKET && q->wait_fd >= 0) {
		getsockopt(q->wait_fd, SOL_SOCKET, SO_ERROR, &error, &size);
	}
}

uint32_t nic_wait_limit_us(const struct nic_queue *q)
{
	uint32_t limit_us = q->link_polled ? memif_wait_limit_us(q) : UINT32_MAX;

	return unlikely(q->inject != NULL) ? RTE_MIN(limit_us, inject_wait_us(q)) : limit_us;
}
