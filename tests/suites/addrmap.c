/* addrmap.c - a preload in front of libpronk.so that moves a program from 127.0.0.1 to other addresses, for
 * suites that know no other address.
 *
 * Runs in the suite's own threads. It rewrites what the program passes down (bind, connect, send*) and hands
 * 127.0.0.1 back where one of the addresses comes up (names, senders). ADDRMAP_BIND and ADDRMAP_CONNECT name
 * the addresses: both Pronk's for listeners under Pronk and clients of the kernel; both the kernel's end for
 * the other way round. A pointer the program passes may be bad on purpose: the kernel copies
 * (process_vm_readv), so a bad one reaches the callee as it is.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define NEXT(name)                                                                                           \
	static __typeof__(&name) next;                                                                       \
	next = next ? next : (__typeof__(&name))dlsym(RTLD_NEXT, #name)

enum { NAME_MAX_SIZE = 128, BATCH_MAX = 1024 };

static in_addr_t bind_to, connect_to, also;

static in_addr_t address_of(const char *variable)
{
	const char *text = getenv(variable);

	return text ? inet_addr(text) : htonl(INADDR_LOOPBACK);
}

__attribute__((constructor)) static void addrmap_start(void)
{
	bind_to = address_of("ADDRMAP_BIND");
	connect_to = address_of("ADDRMAP_CONNECT");
	also = address_of("ADDRMAP_ALSO"); /* comes back as 127.0.0.1, too */
}

static bool copied(void *to, const void *from, size_t size)
{
	struct iovec mine = {to, size}, theirs = {(void *)(uintptr_t)from, size};
	int saved = errno;
	bool ok = process_vm_readv(getpid(), &mine, 1, &theirs, 1, 0) == (ssize_t)size;

	errno = saved;
	return ok;
}

/* where the IPv4 address is in a name of len bytes; NULL when there is none */
static uint8_t *ip_of(void *name, socklen_t len)
{
	struct sockaddr *sa = name;
	struct sockaddr_in6 *six = name;

	if (len >= sizeof(struct sockaddr_in) && sa->sa_family == AF_INET)
		return (uint8_t *)&((struct sockaddr_in *)name)->sin_addr;
	if (len >= sizeof(*six) && sa->sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&six->sin6_addr))
		return six->sin6_addr.s6_addr + 12;
	return NULL;
}

/* the name to pass down: the program's, or the changed copy in room */
static const struct sockaddr *down(const struct sockaddr *name, socklen_t len, void *room, in_addr_t to)
{
	const in_addr_t local = htonl(INADDR_LOOPBACK);
	uint8_t *ip;

	if (!name || len > NAME_MAX_SIZE || !copied(room, name, len))
		return name;
	ip = ip_of(room, len);
	if (!ip || memcmp(ip, &local, 4) != 0)
		return name;
	memcpy(ip, &to, 4);
	return room;
}

static void up(void *name, socklen_t len)
{
	const in_addr_t local = htonl(INADDR_LOOPBACK);
	uint8_t *ip = name ? ip_of(name, len) : NULL;

	if (ip && (!memcmp(ip, &bind_to, 4) || !memcmp(ip, &connect_to, 4) || !memcmp(ip, &also, 4)))
		memcpy(ip, &local, 4);
}

EXPORT int bind(int fd, const struct sockaddr *name, socklen_t len)
{
	_Alignas(16) char room[NAME_MAX_SIZE];
	NEXT(bind);
	return next(fd, down(name, len, room, bind_to), len);
}

EXPORT int connect(int fd, const struct sockaddr *name, socklen_t len)
{
	_Alignas(16) char room[NAME_MAX_SIZE];
	NEXT(connect);
	return next(fd, down(name, len, room, connect_to), len);
}

EXPORT ssize_t sendto(
        int fd, const void *data, size_t size, int flags, const struct sockaddr *name, socklen_t len)
{
	_Alignas(16) char room[NAME_MAX_SIZE];
	NEXT(sendto);
	return next(fd, data, size, flags, down(name, len, room, connect_to), len);
}

EXPORT int getsockname(int fd, struct sockaddr *restrict name, socklen_t *restrict len)
{
	NEXT(getsockname);
	int rc = next(fd, name, len);

	if (!rc)
		up(name, *len);
	return rc;
}

EXPORT int getpeername(int fd, struct sockaddr *restrict name, socklen_t *restrict len)
{
	NEXT(getpeername);
	int rc = next(fd, name, len);

	if (!rc)
		up(name, *len);
	return rc;
}

EXPORT int accept(int fd, struct sockaddr *restrict name, socklen_t *restrict len)
{
	NEXT(accept);
	int rc = next(fd, name, len);

	if (rc >= 0 && name)
		up(name, *len);
	return rc;
}

EXPORT int accept4(int fd, struct sockaddr *restrict name, socklen_t *restrict len, int flags)
{
	NEXT(accept4);
	int rc = next(fd, name, len, flags);

	if (rc >= 0 && name)
		up(name, *len);
	return rc;
}

EXPORT ssize_t recvfrom(
        int fd, void *data, size_t size, int flags, struct sockaddr *restrict name, socklen_t *restrict len)
{
	NEXT(recvfrom);
	ssize_t rc = next(fd, data, size, flags, name, len);

	if (rc >= 0 && name && len)
		up(name, *len);
	return rc;
}

EXPORT ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
	NEXT(recvmsg);
	ssize_t rc = next(fd, msg, flags);

	if (rc >= 0)
		up(msg->msg_name, msg->msg_namelen);
	return rc;
}

EXPORT ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	_Alignas(16) char room[NAME_MAX_SIZE];
	struct msghdr copy;
	NEXT(sendmsg);

	if (!copied(&copy, msg, sizeof(copy)) || !copy.msg_name)
		return next(fd, msg, flags);
	copy.msg_name = (void *)(uintptr_t)down(copy.msg_name, copy.msg_namelen, room, connect_to);
	return next(fd, &copy, flags);
}

EXPORT int recvmmsg(int fd, struct mmsghdr *batch, unsigned count, int flags, struct timespec *timeout)
{
	NEXT(recvmmsg);
	int rc = next(fd, batch, count, flags, timeout);

	for (int i = 0; i < rc; i++)
		up(batch[i].msg_hdr.msg_name, batch[i].msg_hdr.msg_namelen);
	return rc;
}

EXPORT int sendmmsg(int fd, struct mmsghdr *batch, unsigned count, int flags)
{
	struct mmsghdr *copy = NULL;
	char(*room)[NAME_MAX_SIZE] = NULL;
	int rc;
	NEXT(sendmmsg);

	if (!count || count > BATCH_MAX)
		return next(fd, batch, count, flags);
	copy = malloc(count * sizeof(*copy));
	room = malloc(count * sizeof(*room));
	if (!copy || !room || !copied(copy, batch, count * sizeof(*copy))) {
		rc = next(fd, batch, count, flags);
		goto out;
	}
	for (unsigned i = 0; i < count; i++)
		copy[i].msg_hdr.msg_name = (void *)(uintptr_t)down(
		        copy[i].msg_hdr.msg_name, copy[i].msg_hdr.msg_namelen, room[i], connect_to);
	rc = next(fd, copy, count, flags);
	for (int i = 0; i < rc; i++)
		batch[i].msg_len = copy[i].msg_len;
out:
	free(room);
	free(copy);
	return rc;
}
