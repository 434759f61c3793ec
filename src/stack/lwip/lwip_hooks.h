/* lwip_hooks.h - the functions that lwIP calls in the middle of its work. Implemented by the stack; all run
 * on the stack thread, inside a call into lwIP, and must not block or call back into TCP.
 */
#pragma once
#include "lwip/err.h"
#include "lwip/ip_addr.h"

struct pbuf;
struct tcp_hdr;
struct tcp_pcb;
struct netif;

/* Initial sequence number of a connection (RFC 6528: a keyed hash of the four-tuple plus a clock). Addresses
 * in network order, ports in host order. A SYN+ACK carries exactly this number; a SYN of ours carries the one
 * before it. */
u32_t lwip_hook_isn(const ip_addr_t *local, u16_t local_port, const ip_addr_t *remote, u16_t remote_port);

/* The interface for a packet to dest, or NULL: lwIP's own choice. src may be NULL. */
struct netif *lwip_hook_route(const ip4_addr_t *src, const ip4_addr_t *dest);

/* A segment has been matched to pcb and will be processed next. pcb may be a listener (state LISTEN, then it
 * is the shorter struct tcp_pcb_listen) or in TIME_WAIT. header is the TCP header, its fields already in host
 * order; the options are optlen bytes, the first opt1len of them behind the header and the rest at opt2 (NULL
 * if they are contiguous). p holds the payload and stays lwIP's. Returns ERR_OK to go on, anything else to
 * drop the segment. */
err_t lwip_hook_inpacket(
        struct tcp_pcb *pcb, struct tcp_hdr *header, u16_t optlen, u16_t opt1len, u8_t *opt2, struct pbuf *p);
