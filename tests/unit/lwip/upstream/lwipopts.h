/* lwipopts.h - for lwIP's own tests: their options, less what needs an operating system layer. */
#pragma once
#include_next <lwipopts.h>

#undef NO_SYS
#define NO_SYS 1
#undef LWIP_NETCONN
#define LWIP_NETCONN 0
#undef LWIP_SOCKET
#define LWIP_SOCKET 0
#undef LWIP_NETCONN_FULLDUPLEX
#define LWIP_NETCONN_FULLDUPLEX 0
#undef LWIP_NETCONN_SEM_PER_THREAD
#define LWIP_NETCONN_SEM_PER_THREAD 0
#undef LWIP_MDNS_RESPONDER
#define LWIP_MDNS_RESPONDER 0
#undef LWIP_NUM_NETIF_CLIENT_DATA
#define LWIP_NUM_NETIF_CLIENT_DATA 0
#define LWIP_NETIF_LOOPBACK 1
#define IPV6_FRAG_COPYHEADER 1
#define MEM_ALIGNMENT 8
#define MEMP_MEM_MALLOC 1
#define MEMP_STATS 1

extern unsigned int lwip_sys_now;
