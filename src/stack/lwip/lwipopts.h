/* lwipopts.h - the configuration of lwIP inside a stack: raw API only, one instance per stack, IPv4 (IPv6 is
 * a switch).
 *
 * What is off here is done elsewhere: Ethernet, ARP and checksums of frames around the nic layer, timers,
 * ports, listen backlog and demultiplexing in src/stack, allocation in mem.c and memp.c beside this file.
 */
#pragma once

/* No operating system layer: one thread owns the instance. */
#define NO_SYS 1
#define SYS_LIGHTWEIGHT_PROT 0
#define LWIP_NETCONN 0
#define LWIP_SOCKET 0
#define LWIP_TIMERS 0

/* Protocols */
#ifndef LWIP_IPV6
#define LWIP_IPV6 0
#endif
#define LWIP_IPV4 1
#define LWIP_ICMP 1
#define LWIP_RAW 1
#define LWIP_UDP 1
#define LWIP_TCP 1
#define LWIP_ARP 0
#define LWIP_ETHERNET 0
#define LWIP_DHCP 0
#define LWIP_AUTOIP 0
#define LWIP_IGMP 0
#define LWIP_DNS 0

/* IPv6, once it is on: addresses come from the configuration and reassembly must copy on 64-bit machines. */
#define IPV6_FRAG_COPYHEADER 1
#define LWIP_IPV6_DHCP6 0
#define LWIP_IPV6_AUTOCONFIG 0
#define LWIP_IPV6_SEND_ROUTER_SOLICIT 0
#define LWIP_ND6_ALLOW_RA_UPDATES 0

/* IPv4 */
#define IP_FORWARD 0
/* Senders without an address yet (DHCP) may come through: netif.c decides. */
#define LWIP_IP_ACCEPT_UDP_PORT(port) 0
#define IP_FRAG 1
#define IP_REASSEMBLY 1
#define IP_REASS_MAX_PBUFS 1024 /* twenty datagrams of 64 KB; the oldest goes first */
#define IP_REASS_MAXAGE 30      /* seconds, if ip_reass_tmr is called every second; ipfrag_time */
#define LWIP_NETIF_LOOPBACK 0
#define LWIP_HAVE_LOOPIF 0

/* Memory: mem.c and memp.c of this folder. Their limit is what stack_slab_alloc gives, not a count here, so
 * the counts are merely out of the way. */
#define MEM_ALIGNMENT 8
#define MEM_LIBC_MALLOC 0
#define MEMP_MEM_MALLOC 1
#define MEM_SIZE (2047u << 20)
#define MEMP_NUM_TCP_PCB 0x7fffffff
#define MEMP_NUM_TCP_PCB_LISTEN 0x7fffffff
#define MEMP_NUM_TCP_SEG 0x7fffffff
#define MEMP_NUM_UDP_PCB 0x7fffffff
#define MEMP_NUM_RAW_PCB 0x7fffffff
#define MEMP_NUM_PBUF 0x7fffffff
#define MEMP_NUM_FRAG_PBUF 0x7fffffff
#define MEMP_NUM_REASSDATA 256
#define PBUF_POOL_SIZE 64 /* nothing here allocates PBUF_POOL */
#define PBUF_POOL_BUFSIZE 512
#define LWIP_SUPPORT_CUSTOM_PBUF 1

/* TCP. TCP_MSS is a ceiling: what a SYN advertises and what is sent is the smaller of it and the netif's MTU
 * less headers (tcp_eff_send_mss_netif), so 8960 serves MTU 1500 (1460) and MTU 9000 (8960) alike. Everything
 * lwIP would derive from TCP_MSS by default is therefore given as a number. */
#define TCP_MSS 8960
#define TCP_CALCULATE_EFF_SEND_MSS 1
#define LWIP_WND_SCALE 1
#define TCP_RCV_SCALE 5
#define TCP_WND (1024 * 1024)     /* the most a socket can have; lowered per pcb from outside */
#define TCP_SND_BUF (1024 * 1024) /* as above */
#define TCP_SND_QUEUELEN 65000    /* pbufs, a 16-bit count with an overflow margin */
#define TCP_SNDLOWAT 16384
#define TCP_SNDQUEUELOWAT 32768
#define TCP_WND_UPDATE_THRESHOLD (4 * 1460)
#define TCP_OVERSIZE 0 /* payload is referenced, never copied into spare room */
#define TCP_QUEUE_OOSEQ 1
#define TCP_OOSEQ_MAX_BYTES TCP_WND
#define TCP_OOSEQ_MAX_PBUFS 1024 /* tiny segments must not pin every packet buffer */
#define LWIP_TCP_SACK_OUT 1
#define LWIP_TCP_MAX_SACK_NUM 4
#define LWIP_TCP_TIMESTAMPS 0
#define LWIP_TCP_KEEPALIVE 1
#define LWIP_TCP_PCB_NUM_EXT_ARGS 2
#define TCP_LISTEN_BACKLOG 0
#define TCP_MAXRTX 12
#define TCP_SYNMAXRTX 6
#define TCP_MSL 30000u
#define LWIP_TCP_CALC_INITIAL_CWND(mss) ((tcpwnd_size_t)(10 * (mss))) /* RFC 6928 */
#define SO_REUSE 1

/* tcp_ticks counts milliseconds, and the stack sets it. */
#define TCP_TMR_INTERVAL 1
#define TCP_FAST_INTERVAL 1
#define TCP_SLOW_INTERVAL 1

/* Checksums. The nic layer fills in IPv4, TCP and UDP for whole datagrams and checks what arrives, so TCP and
 * IP generation is not even compiled. Nobody else knows ICMP, and a UDP datagram that IP will fragment needs
 * its checksum before that: these are compiled, and NETIF_SET_CHECKSUM_CTRL switches them (and all checks)
 * per netif. */
#define LWIP_CHECKSUM_CTRL_PER_NETIF 1
#define CHECKSUM_GEN_IP 0
#define CHECKSUM_GEN_TCP 0
#define CHECKSUM_GEN_UDP 1
#define CHECKSUM_GEN_ICMP 1
#define CHECKSUM_GEN_ICMP6 1
#define CHECKSUM_CHECK_IP 1
#define CHECKSUM_CHECK_TCP 1
#define CHECKSUM_CHECK_UDP 1
#define CHECKSUM_CHECK_ICMP 1
#define CHECKSUM_CHECK_ICMP6 1
#define LWIP_CHKSUM_ALGORITHM 3

/* Statistics, one set per stack */
#define LWIP_STATS 1
#define LWIP_STATS_LARGE 1
#define LINK_STATS 0
#define ETHARP_STATS 0
#define IP_STATS 1
#define IPFRAG_STATS 1
#define ICMP_STATS 1
#define UDP_STATS 1
#define TCP_STATS 1
#define MEM_STATS 1
#define MEMP_STATS 1
#define SYS_STATS 0
#define MIB2_STATS 1 /* src/stack/mib.c reads some of them */

/* Hooks (lwip_hooks.h) */
#define LWIP_HOOK_FILENAME "lwip_hooks.h"
#define LWIP_HOOK_TCP_ISN(local, local_port, remote, remote_port)                                            \
	lwip_hook_isn(local, local_port, remote, remote_port)
#define LWIP_HOOK_TCP_INPACKET_PCB(pcb, header, optlen, opt1len, opt2, p)                                    \
	lwip_hook_inpacket(pcb, header, optlen, opt1len, opt2, p)
#define LWIP_HOOK_IP4_ROUTE_SRC(src, dest) lwip_hook_route(src, dest)
