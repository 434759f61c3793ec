/* datagram.c - helpers of the programs about datagram sockets. datagram.h has the contracts. */
#include "datagram.h"

int udp_socket(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	if (fd < 0)
		die("socket: %s", strerror(errno));
	return fd;
}

static int bound(struct sockaddr_in a)
{
	int fd = udp_socket();

	if (bind(fd, SA(a), sizeof(a)) < 0)
		die("bind: %s", strerror(errno));
	return fd;
}

int udp_server(int port)
{
	return bound(addr_server(port));
}

int udp_wild(int port)
{
	return bound(addr_any(port));
}

int udp_local(int port)
{
	struct timeval tv = {.tv_sec = 8};
	int fd = bound(addr_loopback(port));

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	return fd;
}

int udp_to_peer(int port)
{
	struct sockaddr_in a = addr_peer(port);
	int fd = udp_socket();

	if (connect(fd, SA(a), sizeof(a)) < 0)
		die("connect: %s", strerror(errno));
	return fd;
}

int peer_udp(int port)
{
	return peer_ok("udp %d", port);
}

long send_text(const char *what, int fd, const char *text, struct sockaddr_in to)
{
	return ret(what, sendto(fd, text, strlen(text), 0, SA(to), sizeof(to)));
}

long recv_text(const char *what, int fd, int flags)
{
	struct sockaddr_in a = {0};
	socklen_t len = sizeof(a);
	char b[65536] = "";
	long n = ret(what, recvfrom(fd, b, sizeof(b), flags, SA(a), &len));

	if (n >= 0) {
		out("\"%.*s\"", n < 40 ? (int)n : 40, b);
		show_addr("from", &a, len);
	}
	return n;
}

long send_size(const char *what, int fd, size_t size, int flags)
{
	static char b[70000];

	pattern_fill(b, 0, size);
	return ret(what, send(fd, b, size, flags));
}

void show_names(int fd)
{
	struct sockaddr_in a = {0};
	socklen_t len = sizeof(a);

	ret("sockname", getsockname(fd, SA(a), &len));
	show_addr("is", &a, len);
	len = sizeof(a);
	memset(&a, 0, sizeof(a));
	if (!ret("peername", getpeername(fd, SA(a), &len)))
		show_addr("is", &a, len);
}

void settle_in(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	if (poll(&p, 1, 8000) != 1)
		die("nothing came");
}
