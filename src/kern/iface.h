/* iface.h - what the kernel knows of an interface, asked by rtnetlink(7): addresses, gateway, MTU, state,
 * permanent neighbours; and who carries the route to an address.
 *
 * IPv4. A struct rtnl is one thread's. Every function returns 0 or -E, and blocks for as long as the kernel
 * needs for its answer. Addresses are in network byte order.
 */
#pragma once
#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

struct mnl_socket;
struct nlmsghdr;

enum { IFACE_ADDR_MAX = 32, IFACE_NEIGH_MAX = 256 };

struct rtnl {
	struct mnl_socket *socket;
	uint32_t seq;
};

struct iface_addr {
	uint8_t ip[4];
	uint8_t prefix;
	bool is_secondary;
};

struct iface_neigh {
	uint8_t ip[4];
	uint8_t mac[6];
};

/* One interface as it is now. */
struct iface {
	int index;
	char name[IF_NAMESIZE];
	bool is_up;       /* as its owner wants it */
	bool has_carrier; /* up, and somebody is at the other end */
	bool has_mac;
	uint8_t mac[6];
	uint32_t mtu, rx_queues, tx_queues;
	int master;    /* index of the bridge or bond that it belongs to; 0: none */
	char kind[16]; /* "veth", "bridge", ...; empty for hardware */
	bool has_xdp;  /* some XDP program is attached */
	uint32_t addr_count;
	struct iface_addr addr[IFACE_ADDR_MAX]; /* in the kernel's order: the first is what it sends from */
	bool has_gateway; /* a default route leads here through a gateway; lowest metric */
	uint8_t gateway[4];
	uint32_t gateway_metric; /* of that route; 0: none was given */
	bool has_default;        /* a default route leads here, with or without a gateway */
	uint32_t neigh_count, neigh_left_out;
	struct iface_neigh neigh[IFACE_NEIGH_MAX]; /* the permanent ones */
};

int rtnl_open(struct rtnl *n);
void rtnl_close(struct rtnl *n);

/* Everything above, of the interface with that index. -ENODEV: there is none. */
int iface_read(struct rtnl *n, int index, struct iface *out);

/* Where the kernel sends packets to that address (4 or 16 bytes): the interface's index, or -E (-ENETUNREACH
 * and the like). */
int iface_towards(struct rtnl *n, int family, const void *ip);

/* Calls each for every IPv4 address of the machine. */
int iface_addresses(
        struct rtnl *n, void (*each)(void *arg, int index, const struct iface_addr *a), void *arg);

/* What the driver can do with XDP (netdev netlink family, Linux 6.3): IFACE_XDP_* bits. -EOPNOTSUPP when the
 * kernel does not say. */
enum {
	IFACE_XDP_BASIC = 1 << 0,
	IFACE_XDP_REDIRECT = 1 << 1,
	IFACE_XDP_ZERO_COPY = 1 << 3,
};
int iface_xdp_features(int index, uint64_t *features);

/* --- watch.c --- */

/* Tells that something of an interface may have changed. */
struct watch_iface;

/* Begins to watch. -E of socket(2) and bind(2). */
int watch_iface_open(struct watch_iface **out, int index);
void watch_iface_close(struct watch_iface *w);
/* Readable when there is news. Constant. */
int watch_iface_fd(const struct watch_iface *w);
/* The permanent neighbours that its user knows: without their number, the end of one would be no news. */
void watch_iface_known(struct watch_iface *w, const struct iface_neigh *neigh, uint32_t count);
/* Takes what there is. True when the interface should be read anew. Does not block. */
bool watch_iface_take(struct watch_iface *w);
