/* local.h - decisions about addresses of this host that the kernel serves, too (bind(2), connect(2), ip(7)).
 * Any thread.
 */
#pragma once
#include <stdbool.h>

#include "file.h"
#include "layout.h"

/* Whether a port that the kernel would give is taken here: by a socket at our address, or by connections that
 * have outlived their listener, which the kernel cannot know. Asked before the kernel binds, as that cannot
 * be undone. Waits for the service's answer; false while not attached. */
bool local_port_is_taken(struct file *f, int fd, const struct sock_addr *a);

/* Whether a connection of an open socket to a loopback address, to our own or to none is Pronk's; the address
 * becomes the one that is meant. May join the service the first time. */
bool local_connect(struct file *f, int fd, struct sock_addr *to);

/* On the kernel's loopback interface what one end does has reached the other when its call returns. Before a
 * call says that there is nothing (yet), this gives the stacks the turns it takes for what was done before
 * it; at most SETTLE_MAX_NS. True when the caller is to look once more; false at once when the endpoint's
 * other end is not on this host. ep NULL: any. */
bool local_settle(const struct endpoint *ep);
