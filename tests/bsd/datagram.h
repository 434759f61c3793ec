/* datagram.h - what the programs about datagram sockets share. Contracts as in bsd.h. */
#pragma once
#include "bsd.h"

int udp_socket(void);
/* Bound to the server's address, or to every address. */
int udp_server(int port);
int udp_wild(int port);
/* Bound nowhere, connected to this port of the peer. */
int udp_to_peer(int port);
/* A kernel socket of the peer's; its id. */
int peer_udp(int port);
/* A socket of this process bound to a loopback address with a time limit for receiving: the other end of
 * what goes through loopback. */
int udp_local(int port);
/* sendto a text; recvfrom one datagram and what came: size, text of at most 40 bytes, sender. */
long send_text(const char *what, int fd, const char *text, struct sockaddr_in to);
long recv_text(const char *what, int fd, int flags);
/* A datagram of the pattern. */
long send_size(const char *what, int fd, size_t size, int flags);
/* The socket's names. */
void show_names(int fd);
/* Waits until a datagram can be read. */
void settle_in(int fd);
