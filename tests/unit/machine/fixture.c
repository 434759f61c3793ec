/* fixture.c - makes and removes the folders, see fixture.h. */
#include "fixture.h"

#include <ftw.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void path_of(struct fixture *f, char *buf, const char *path)
{
	assert_true(snprintf(buf, PATH_MAX, "%s%s", f->root, path) < PATH_MAX);
}

static void parents(char *path)
{
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		mkdir(path, 0755);
		*slash = '/';
	}
}

void put(struct fixture *f, const char *path, const char *text)
{
	char name[PATH_MAX];
	FILE *file;

	path_of(f, name, path);
	parents(name);
	file = fopen(name, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

void link_to(struct fixture *f, const char *path, const char *target)
{
	char name[PATH_MAX];

	path_of(f, name, path);
	parents(name);
	unlink(name);
	assert_int_equal(symlink(target, name), 0);
}

void drop(struct fixture *f, const char *path)
{
	char name[PATH_MAX];

	path_of(f, name, path);
	unlink(name);
}

const char *text_at(struct fixture *f, const char *path)
{
	static char text[4096];
	char name[PATH_MAX];
	FILE *file;
	size_t n;

	path_of(f, name, path);
	file = fopen(name, "r");
	if (!file)
		return NULL;
	n = fread(text, 1, sizeof(text) - 1, file);
	text[n] = 0;
	fclose(file);
	return text;
}

int fixture_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	*state = f;
	strcpy(f->root, "/tmp/pronk-machine.XXXXXX");
	if (!mkdtemp(f->root))
		return -1;
	f->m.root = f->root;
	strcpy(f->m.release, "6.1.0-test");
	f->m.is_root = true;
	f->m.files = (struct rlimit){65536, 1 << 20};
	f->m.memlock = (struct rlimit){8 << 20, 8 << 20};
	f->m.allowed_count = 2;
	f->m.allowed[1] = 1;
	f->m.xdp_program = 1;
	f->m.service = -2;                    /* ENOENT */
	f->m.iface_rc = f->m.ssh_index = -19; /* ENODEV */
	strcpy(f->m.library, "DPDK test");
	strcpy(f->m.drivers, "/drivers");
	put(f, "/drivers/librte_net_tap.so.23", "");
	put(f, "/drivers/librte_net_af_xdp.so.23", "");
	put(f, "/drivers/librte_net_af_packet.so.23", "");
	put(f, "/proc/sys/fs/nr_open", "1048576\n");
	put(f, "/proc/mounts", "proc /proc proc rw 0 0\nhugetlbfs /dev/hugepages hugetlbfs rw 0 0\n");
	put(f, "/proc/cpuinfo", "flags\t\t: fpu sse2\n");
	put(f, "/boot/config-6.1.0-test",
	        "# made up\nCONFIG_XDP_SOCKETS=y\nCONFIG_BPF_SYSCALL=y\nCONFIG_PACKET=y\nCONFIG_TUN=m\nCONFIG_HUGETLBFS=y\n"
	        "# CONFIG_VFIO_PCI is not set\n");
	put(f, "/dev/net/tun", "");
	put(f, "/run/here", "");
	put(f, "/sys/devices/system/node/online", "0\n");
	put(f, "/sys/devices/system/node/node0/cpulist", "0-1\n");
	put(f, "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "1024\n");
	put(f, "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "1024\n");
	put(f, "/sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages", "0\n");
	put(f, "/sys/devices/system/cpu/isolated", "\n");
	put(f, "/sys/devices/system/cpu/vulnerabilities/meltdown", "Not affected\n");
	cfg_defaults(&f->cfg);
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

int fixture_down(void **state)
{
	struct fixture *f = *state;

	report_free(&f->r);
	nftw(f->root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}
