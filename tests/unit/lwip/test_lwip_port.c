/* test_lwip_port.c - the lwIP that the stacks use, with their options, heap and pools: allocation,
 * accounting, one instance per thread, and the segment size a SYN advertises. Single packets are looked at at
 * netif->output; no nic.
 */
#include "lwip/init.h"
#include "lwip/ip4_frag.h"
#include "lwip/prot/tcp.h"
#include "lwip/prot/ip4.h"
#include "lwip/netif.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/stats.h"
#include "lwip/sys.h"
#include "lwip/udp.h"
#include "lwip_hooks.h"
#include "lwip_mem.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                                     \
	do {                                                                                                 \
		if (!(condition)) {                                                                          \
			fprintf(stderr, "%s:%d: %s: not so: %s\n", __FILE__, __LINE__, __func__,             \
			        #condition);                                                                 \
			exit(1);                                                                             \
		}                                                                                            \
	} while (0)

/* What the stack implements for lwIP. */
static LWIP_PER_STACK unsigned assert_count, hook_count;
static LWIP_PER_STACK size_t slab_bytes, slab_limit;
void lwip_tcp_input(struct pbuf *p, struct netif *inp);
void lwip_udp_input(struct pbuf *p, struct netif *inp);
void lwip_icmp_input(struct pbuf *p, struct netif *inp);

void stack_lwip_assert(const char *message, int line, const char *file)
{
	(void)message, (void)line, (void)file;
	assert_count++;
}

uint32_t stack_rand(void)
{
	return (uint32_t)rand();
}

u32_t sys_now(void)
{
	return 0;
}

void *stack_slab_alloc(size_t bytes)
{
	if (slab_bytes + bytes > slab_limit)
		return NULL;
	slab_bytes += bytes;
	void *slab = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
	CHECK(slab);
	memset(slab, 0xa5, bytes);
	return slab;
}

void stack_slab_free(void *slab, size_t bytes)
{
	slab_bytes -= bytes;
	free(slab);
}

u32_t lwip_hook_isn(const ip_addr_t *local, u16_t local_port, const ip_addr_t *remote, u16_t remote_port)
{
	(void)local, (void)local_port, (void)remote, (void)remote_port;
	return 0x12345678;
}

struct netif *lwip_hook_route(const ip4_addr_t *src, const ip4_addr_t *dest)
{
	(void)src, (void)dest;
	return NULL;
}

err_t lwip_hook_inpacket(
        struct tcp_pcb *pcb, struct tcp_hdr *header, u16_t optlen, u16_t opt1len, u8_t *opt2, struct pbuf *p)
{
	(void)pcb, (void)header, (void)optlen, (void)opt1len, (void)opt2, (void)p;
	hook_count++;
	return ERR_OK;
}

void tcp_input(struct pbuf *p, struct netif *inp)
{
	lwip_tcp_input(p, inp);
}

err_t netif_ip4_frag(struct pbuf *p, struct netif *netif, const ip4_addr_t *dest);
err_t netif_ip4_frag(struct pbuf *p, struct netif *netif, const ip4_addr_t *dest)
{
	return ip4_frag(p, netif, dest);
}

void udp_input(struct pbuf *p, struct netif *inp)
{
	lwip_udp_input(p, inp);
}

void icmp_input(struct pbuf *p, struct netif *inp)
{
	lwip_icmp_input(p, inp);
}

static void stack_begin(void)
{
	assert_count = hook_count = 0;
	slab_limit = (size_t)64 << 20;
	lwip_init();
}

static void stack_end(void)
{
	struct lwip_mem_usage usage;
	lwip_mem_usage(&usage);
	CHECK(usage.heap_count == 0 && usage.heap_bytes == 0 && usage.pool_total == 0);
	CHECK(assert_count == 0);
	CHECK(lwip_stats.mem.used == 0);
	CHECK(usage.slab_bytes == slab_bytes);
	lwip_mem_fini();
	CHECK(slab_bytes == 0);
	lwip_mem_usage(&usage);
	CHECK(usage.slab_bytes == 0);
	lwip_mem_fini();
}

static void heap_every_size_is_aligned_apart_and_counted(void)
{
	static const mem_size_t sizes[] = {
	        1, 8, 55, 56, 57, 64, 88, 89, 120, 121, 184, 1500, 2040, 4096, 9000, 65535, 70000, 131064};
	enum { COUNT = sizeof sizes / sizeof *sizes };
	uint8_t *blocks[COUNT][3];
	struct lwip_mem_usage usage;
	stack_begin();
	for (int i = 0; i < COUNT; i++)
		for (int j = 0; j < 3; j++) {
			blocks[i][j] = mem_malloc(sizes[i]);
			CHECK(blocks[i][j] && (uintptr_t)blocks[i][j] % MEM_ALIGNMENT == 0);
			memset(blocks[i][j], i * 3 + j, sizes[i]);
		}
	lwip_mem_usage(&usage);
	CHECK(usage.heap_count == COUNT * 3);
	CHECK(usage.heap_bytes == lwip_stats.mem.used);
	for (int i = 0; i < COUNT; i++)
		for (int j = 0; j < 3; j++)
			for (mem_size_t k = 0; k < sizes[i]; k++)
				CHECK(blocks[i][j][k] == i * 3 + j);
	size_t before = slab_bytes;
	for (int i = 0; i < COUNT; i++) {
		CHECK(mem_trim(blocks[i][1], (mem_size_t)(sizes[i] / 2)) == blocks[i][1]);
		mem_free(blocks[i][1]);
		CHECK(mem_malloc(sizes[i]) == blocks[i][1]); /* last freed, first reused */
		for (int j = 0; j < 3; j++)
			mem_free(blocks[i][j]);
	}
	CHECK(slab_bytes == before);
	uint8_t *zeroes = mem_calloc(3, 100);
	for (int i = 0; i < 300; i++)
		CHECK(zeroes[i] == 0);
	mem_free(zeroes);
	stack_end();
}

static void heap_refuses_what_it_cannot_serve(void)
{
	struct lwip_mem_usage usage;
	stack_begin();
	u32_t errors = lwip_stats.mem.err;
	CHECK(mem_malloc(0) == NULL);
	CHECK(mem_malloc(131065) == NULL);
	CHECK(mem_calloc(0x10000, 0x10001) == NULL);
	CHECK(lwip_stats.mem.err == errors + 2);
	mem_free(NULL);
	void *block = mem_malloc(100);
	mem_free(block);
	mem_free(block); /* twice: counted, nothing else */
	CHECK(lwip_stats.mem.illegal == 1 && assert_count == 1);
	CHECK(mem_malloc(100) == block && mem_malloc(100) != block);
	assert_count = 0;
	lwip_mem_usage(&usage);
	CHECK(usage.heap_count == 2);
	lwip_mem_fini();
	lwip_stats.mem = (struct stats_mem){0};
	CHECK(slab_bytes == 0);
}

static void without_memory_every_allocation_fails_quietly(void)
{
	stack_begin();
	slab_limit = slab_bytes + 64 * 1024;
	unsigned count = 0;
	struct pbuf *chain = NULL, *p;
	while ((p = pbuf_alloc(PBUF_RAW, 1000, PBUF_RAM)) != NULL) {
		if (chain)
			pbuf_cat(p, chain);
		chain = p;
		count++;
	}
	CHECK(count > 10 && count < 64);
	CHECK(udp_new() == NULL);
	CHECK(lwip_stats.mem.err > 0 && lwip_stats.memp[MEMP_UDP_PCB]->err > 0);
	slab_limit += 64 * 1024;
	struct udp_pcb *pcb = udp_new();
	CHECK(pcb);
	udp_remove(pcb);
	pbuf_free(chain);
	stack_end();
	slab_limit = 0;
	lwip_init();
	CHECK(mem_malloc(8) == NULL && udp_new() == NULL);
	CHECK(assert_count >= 2);
	lwip_mem_fini();
}

/* A netif that keeps the last packet. */
static LWIP_PER_STACK uint8_t sent[16384];
static LWIP_PER_STACK unsigned sent_size, sent_count;

static err_t output(struct netif *netif, struct pbuf *p, const ip4_addr_t *next_hop)
{
	(void)netif, (void)next_hop;
	sent_size = pbuf_copy_partial(p, sent, sizeof sent, 0);
	sent_count++;
	return ERR_OK;
}

static err_t netif_setup(struct netif *netif)
{
	netif->output = output;
	netif->mtu = *(uint16_t *)netif->state;
	netif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_UP | NETIF_FLAG_LINK_UP;
	NETIF_SET_CHECKSUM_CTRL(netif, NETIF_CHECKSUM_GEN_ICMP);
	return ERR_OK;
}

static void netif_up(struct netif *netif, uint16_t *mtu)
{
	ip4_addr_t address, mask, gateway;
	IP4_ADDR(&address, 10, 0, 0, 1);
	IP4_ADDR(&mask, 255, 255, 255, 0);
	IP4_ADDR(&gateway, 10, 0, 0, 2);
	memset(netif, 0, sizeof *netif);
	CHECK(netif_add(netif, &address, &mask, &gateway, mtu, netif_setup, ip4_input));
	netif_set_default(netif);
}

/* The MSS option of the last packet sent, which must be a SYN. */
static unsigned sent_mss(void)
{
	const struct tcp_hdr *tcp = (const void *)(sent + IP_HLEN);
	CHECK(sent_size > IP_HLEN + TCP_HLEN && TCPH_FLAGS(tcp) & TCP_SYN);
	const uint8_t *option = sent + IP_HLEN + TCP_HLEN;
	CHECK(option[0] == 2 && option[1] == 4);
	return option[2] << 8 | option[3];
}

static u32_t sent_seqno(void)
{
	return lwip_ntohl(((const struct tcp_hdr *)(const void *)(sent + IP_HLEN))->seqno);
}

/* A SYN from 10.0.0.9 with the given MSS option. */
static void receive_syn(struct netif *netif, unsigned mss)
{
	struct pbuf *p = pbuf_alloc(PBUF_RAW, IP_HLEN + TCP_HLEN + 4, PBUF_RAM);
	uint8_t *data = p->payload;
	memset(data, 0, p->len);
	struct ip_hdr *ip = (void *)data;
	IPH_VHL_SET(ip, 4, IP_HLEN / 4);
	IPH_LEN_SET(ip, lwip_htons(p->len));
	IPH_TTL_SET(ip, 64);
	IPH_PROTO_SET(ip, IP_PROTO_TCP);
	ip->src.addr = lwip_htonl(0x0a000009);
	ip->dest.addr = lwip_htonl(0x0a000001);
	struct tcp_hdr *tcp = (void *)(data + IP_HLEN);
	tcp->src = lwip_htons(4000);
	tcp->dest = lwip_htons(80);
	tcp->seqno = lwip_htonl(77);
	tcp->wnd = lwip_htons(65535);
	TCPH_HDRLEN_FLAGS_SET(tcp, 6, TCP_SYN);
	uint8_t option[] = {2, 4, (uint8_t)(mss >> 8), (uint8_t)mss};
	memcpy(tcp + 1, option, sizeof option);
	CHECK(netif->input(p, netif) == ERR_OK);
}

static void syn_advertises_mss_of_the_mtu(uint16_t mtu, unsigned peer_mss, unsigned advertised, unsigned used)
{
	struct netif netif;
	ip_addr_t remote = IPADDR4_INIT(PP_HTONL(0x0a000009));
	stack_begin();
	netif_up(&netif, &mtu);
	sent_count = 0;
	struct tcp_pcb *pcb = tcp_new();
	CHECK(tcp_connect(pcb, &remote, 80, NULL) == ERR_OK);
	CHECK(sent_count == 1 && sent_mss() == advertised);
	CHECK(sent_seqno() == 0x12345677);
	tcp_abort(pcb);

	pcb = tcp_new();
	CHECK(tcp_bind(pcb, IP_ANY_TYPE, 80) == ERR_OK);
	struct tcp_pcb *listener = tcp_listen(pcb);
	CHECK(listener);
	hook_count = 0;
	receive_syn(&netif, peer_mss);
	CHECK(hook_count == 1);
	CHECK(sent_mss() == advertised);
	CHECK(sent_seqno() == 0x12345678);
	CHECK(tcp_active_pcbs && tcp_active_pcbs->mss == used);
	tcp_abort(tcp_active_pcbs);
	tcp_close(listener);
	netif_remove(&netif);
	stack_end();
}

/* Half a datagram in reassembly must not outlive the stack. */
static void fini_drops_half_reassembled_datagrams(void)
{
	struct netif netif;
	uint16_t mtu = 1500;
	struct lwip_mem_usage usage;
	stack_begin();
	netif_up(&netif, &mtu);
	struct pbuf *p = pbuf_alloc(PBUF_RAW, IP_HLEN + 64, PBUF_RAM);
	memset(p->payload, 0, p->len);
	struct ip_hdr *ip = p->payload;
	IPH_VHL_SET(ip, 4, IP_HLEN / 4);
	IPH_LEN_SET(ip, lwip_htons(p->len));
	IPH_OFFSET_SET(ip, PP_HTONS(IP_MF));
	IPH_TTL_SET(ip, 64);
	IPH_PROTO_SET(ip, IP_PROTO_UDP);
	ip->src.addr = lwip_htonl(0x0a000009);
	ip->dest.addr = lwip_htonl(0x0a000001);
	CHECK(netif.input(p, &netif) == ERR_OK);
	netif_remove(&netif);
	lwip_mem_usage(&usage);
	CHECK(usage.heap_count == 1 && usage.pool_total == 1);
	lwip_mem_fini();
	CHECK(lwip_stats.mem.used == 0 && slab_bytes == 0);
	stack_begin();
	for (int i = 0; i < 3; i++)
		ip_reass_tmr();
	stack_end();
}

#if !PRONK_LWIP_INLINE
static void *another_stack(void *main_list)
{
	CHECK(&tcp_active_pcbs != main_list && netif_list == NULL && lwip_stats.tcp.xmit == 0);
	CHECK(mem_malloc(8) == NULL && assert_count == 1); /* no lwip_init yet on this thread */
	syn_advertises_mss_of_the_mtu(1500, 1460, 1460, 1460);
	CHECK(lwip_stats.tcp.xmit > 0);
	return NULL;
}

static void second_thread_has_an_instance_of_its_own(void)
{
	struct netif netif;
	uint16_t mtu = 1500;
	pthread_t thread;
	stack_begin();
	netif_up(&netif, &mtu);
	u32_t xmit = lwip_stats.tcp.xmit;
	CHECK(pthread_create(&thread, NULL, another_stack, &tcp_active_pcbs) == 0);
	CHECK(pthread_join(thread, NULL) == 0);
	CHECK(lwip_stats.tcp.xmit == xmit && netif_list == &netif);
	netif_remove(&netif);
	stack_end();
}
#endif

int main(void)
{
	for (int i = 0; i < 3; i++) {
		heap_every_size_is_aligned_apart_and_counted();
		heap_refuses_what_it_cannot_serve();
		without_memory_every_allocation_fails_quietly();
		syn_advertises_mss_of_the_mtu(1500, 1460, 1460, 1460);
		syn_advertises_mss_of_the_mtu(1500, 8960, 1460, 1460);
		syn_advertises_mss_of_the_mtu(9000, 8960, 8960, 8960);
		syn_advertises_mss_of_the_mtu(9000, 1460, 8960, 1460);
		syn_advertises_mss_of_the_mtu(576, 1460, 536, 536);
		fini_drops_half_reassembled_datagrams();
#if !PRONK_LWIP_INLINE
		second_thread_has_an_instance_of_its_own();
#endif
	}
	CHECK(strcmp(lwip_mem_pool_name(MEMP_TCP_PCB), "TCP_PCB") == 0 && !lwip_mem_pool_name(MEMP_MAX));
	puts("ok");
	return 0;
}
