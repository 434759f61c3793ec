/* pages.c - see pages.h. */
#include "pages.h"

#include <stdio.h>

#include "cfg.h"

enum { MTU_USUAL = 1500, DMA_SHARE = 64 };

uint64_t pages_packet_bytes(const struct cfg *cfg, uint32_t mtu)
{
	uint32_t frame, room;
	enum cfg_device kind = CFG_DEVICE_TAP;
	const char *arg;
	uint64_t bytes;

	cfg_parse_device(cfg->device, &kind, &arg);
	if (cfg->mtu != 0)
		mtu = cfg->mtu;
	frame = (mtu != 0 ? mtu : MTU_USUAL) + PAGES_FRAME_EXTRA;
	room = frame > PAGES_DATA_ROOM ? (frame + 63) / 64 * 64 : PAGES_DATA_ROOM;
	bytes = (uint64_t)cfg->packet_buffers *
	        (3 * PAGES_LINE + (kind == CFG_DEVICE_AFXDP ? PAGES_BUFFER_XDP
	                                                    : PAGES_BUFFER_HEAD + PAGES_HEADROOM + room));
	if (kind == CFG_DEVICE_PCI) /* no buffer lies across pages that the NIC sees apart */
		bytes += bytes / DMA_SHARE;
	return bytes + PAGES_LIBRARY;
}

/* -1 when there is no such file. */
static long number_read(const char *root, const char *folder, const char *name)
{
	char path[512];
	long value = -1;
	FILE *file;

	snprintf(path, sizeof(path), "%s/sys/%s/hugepages/hugepages-2048kB/%s", root, folder, name);
	file = fopen(path, "re");
	if (file == NULL)
		return -1;
	if (fscanf(file, "%ld", &value) != 1)
		value = -1;
	fclose(file);
	return value;
}

void pages_read(struct pages *p, const char *root, int node)
{
	long total = number_read(root, "kernel/mm", "nr_hugepages"),
	     left = number_read(root, "kernel/mm", "free_hugepages"),
	     promised = number_read(root, "kernel/mm", "resv_hugepages");
	char folder[64];

	*p = (struct pages){.has_any = total >= 0};
	if (!p->has_any)
		return;
	p->total = total;
	p->left = left > promised && left > 0 ? left - (promised > 0 ? promised : 0) : 0;
	if (node < 0)
		return;
	snprintf(folder, sizeof(folder), "devices/system/node/node%d", node);
	total = number_read(root, folder, "nr_hugepages");
	left = number_read(root, folder, "free_hugepages");
	if (total < 0 || left < 0)
		return;
	/* the kernel does not tell on which node the promised ones are */
	p->total = total;
	p->left = left < p->left ? left : p->left;
}

long pages_want(const struct pages *p, uint32_t need)
{
	return p->left >= (long)need ? p->total : p->total + (long)need - p->left;
}
