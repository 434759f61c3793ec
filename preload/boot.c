/* boot.c - what happens when the library is loaded: next to nothing.
 *
 * The real calls are looked up; messages go past the shim; the way to start a service is handed to src/sock.
 * Nothing else runs before the first socket that could be Pronk's, except that sockets which came over exec
 * are taken in.
 */
#include "shim.h"

#include "autostart.h"
#include "inline.h"
#include "log.h"
#include "pass.h"

/* A line of ours must never go to a peer, nor raise SIGPIPE at the empty kernel socket behind one of Pronk's.
 */
static ssize_t real_write(int fd, const void *buf, size_t size)
{
	struct file *f = file_get(fd);
	bool is_socket = f && f->kind == FILE_SOCKET;

	if (f)
		file_put(f);
	return is_socket ? (ssize_t)size : RAW(SYS_write, fd, buf, size);
}

__attribute__((constructor)) static void boot(void)
{
	libc_init();
	log_write_hook = real_write;
	log_prefix("pronk");
	proc_starter = service_ensure;
	proc_inline_starter = inline_start;
	pass_exec_adopt();
	if (file_any())
		for (int fd = 0; fd <= 2; fd++)
			stdio_follow(fd);
}
