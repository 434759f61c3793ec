/* boot.c - what happens when the library is loaded: next to nothing.
 *
 * The real calls are looked up; messages go past the shim; the way to start a service is handed to src/sock.
 * Nothing else runs before the first socket that could be Pronk's.
 */
#include "shim.h"

#include "autostart.h"
#include "log.h"

static ssize_t real_write(int fd, const void *buf, size_t size)
{
	return syscall(SYS_write, fd, buf, size);
}

__attribute__((constructor)) static void boot(void)
{
	libc_init();
	log_write_hook = real_write;
	log_prefix("pronk");
	proc_starter = service_ensure;
}
