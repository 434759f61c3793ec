/* addr.c - between struct sockaddr of the application and struct sock_addr of the arena. Pure functions. */
#include "sock.h"
#include "clock.h"
#include "user.h"
#include "wait.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

int addr_from_user(struct sock_addr *a, const struct sockaddr *addr, socklen_t len)
{
	memset(a, 0, sizeof(*a));
	if (!addr || len < sizeof(sa_family_t) || len > sizeof(struct sockaddr_storage))
		return -EINVAL;
	if (unlikely(user_is_wild(addr)))
		return -EFAULT;
	if (addr->sa_family == AF_INET) {
		struct sockaddr_in in;

		if (len < sizeof(in))
			return -EINVAL;
		memcpy(&in, addr, sizeof(in));
		a->family = AF_INET;
		a->port = ntohs(in.sin_port);
		memcpy(a->ip, &in.sin_addr, 4);
		return 0;
	}
	if (addr->sa_family == AF_INET6) {
		struct sockaddr_in6 in6;

		if (len < 24) /* SIN6_LEN_RFC2133 */
			return -EINVAL;
		memset(&in6, 0, sizeof(in6));
		memcpy(&in6, addr, len < sizeof(in6) ? len : sizeof(in6));
		a->port = ntohs(in6.sin6_port);
		if (IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr)) {
			a->family = AF_INET;
			memcpy(a->ip, in6.sin6_addr.s6_addr + 12, 4);
			return 0;
		}
		a->family = AF_INET6;
		a->scope = in6.sin6_scope_id;
		memcpy(a->ip, &in6.sin6_addr, 16);
		return 0;
	}
	return -EAFNOSUPPORT;
}

int addr_to_user(const struct sock_addr *a, int domain, struct sockaddr *addr, socklen_t *len)
{
	union {
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} u;
	socklen_t size;

	if (user_is_bad(len))
		return -EFAULT;
	if ((int)*len < 0)
		return -EINVAL;
	if (*len && user_is_bad(addr))
		return -EFAULT;
	memset(&u, 0, sizeof(u));
	if (domain == AF_INET6) {
		size = sizeof(u.in6);
		u.in6.sin6_family = AF_INET6;
		u.in6.sin6_port = htons(a->port);
		if (a->family == AF_INET) {
			if (memcmp(a->ip, "\0\0\0\0", 4) != 0) { /* the wildcard stays :: */
				u.in6.sin6_addr.s6_addr[10] = u.in6.sin6_addr.s6_addr[11] = 0xff;
				memcpy(u.in6.sin6_addr.s6_addr + 12, a->ip, 4);
			}
		} else {
			memcpy(&u.in6.sin6_addr, a->ip, 16);
			u.in6.sin6_scope_id = a->scope;
		}
	} else {
		size = sizeof(u.in);
		u.in.sin_family = AF_INET;
		u.in.sin_port = htons(a->port);
		memcpy(&u.in.sin_addr, a->ip, 4);
	}
	if (*len)
		memcpy(addr, &u, *len < size ? *len : size);
	*len = size;
	return 0;
}

uint64_t deadline_after(uint64_t timeout_ns)
{
	return timeout_ns ? clock_now_ns() + timeout_ns : WAIT_FOREVER;
}
