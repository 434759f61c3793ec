/* check_files.c - findings of `pronk check` about several configuration files together: whether one program
 * can use the services of all of them, and which of their options hold for it.
 *
 * Each finding is there once, in a fixed order, with the worst that was seen. Pure. */
#include "machine.h"

#include <string.h>

#include "arena.h"
#include "pages.h"

/* Two files, in their order. False when one of them could not be read: nothing is known of it then. */
static bool pair_next(const struct checked *files, uint32_t count, uint32_t *a, uint32_t *b)
{
	do {
		if (++*b == count) {
			++*a;
			*b = *a + 1;
		}
		if (*b >= count)
			return false;
	} while (!files[*a].is_good || !files[*b].is_good);
	return true;
}

static void sockets_check(const struct checked *files, uint32_t count, struct report *r)
{
	char path[CFG_SOCKET_PATH_MAX], other[CFG_SOCKET_PATH_MAX];
	struct finding *f;

	for (uint32_t a = 0, b = 0; pair_next(files, count, &a, &b);) {
		cfg_socket_path(&files[a].cfg, path, sizeof(path));
		cfg_socket_path(&files[b].cfg, other, sizeof(other));
		if (strcmp(path, other))
			continue;
		f = report_add(r, LEVEL_MISSING, "files.service", "%s and %s name the same service, %s",
		        files[a].path, files[b].path, path);
		finding_means(f, "A program leaves the second one out.");
		finding_fix(f, "name = \"%.20s-%u\"; # in %s", files[b].cfg.name, b + 1, files[b].path);
		return;
	}
	report_add(r, LEVEL_OK, "files.service", "each has a service of its own");
}

/* Whether two services would take one device. The two ends of a memif have one name. */
static bool is_same_device(const struct cfg *a, const struct cfg *b)
{
	enum cfg_device kind, other;
	const char *arg, *other_arg;

	if (cfg_parse_device(a->device, &kind, &arg) || cfg_parse_device(b->device, &other, &other_arg))
		return false;
	if ((kind == CFG_DEVICE_PCI) != (other == CFG_DEVICE_PCI) ||
	        (kind == CFG_DEVICE_MEMIF) != (other == CFG_DEVICE_MEMIF))
		return false;
	if (kind == CFG_DEVICE_MEMIF && (a->memif_role != b->memif_role || a->memif_id != b->memif_id))
		return false;
	/* the domain of a PCI address may be left out */
	if (kind == CFG_DEVICE_PCI && !strncmp(arg, "0000:", 5))
		arg += 5;
	if (kind == CFG_DEVICE_PCI && !strncmp(other_arg, "0000:", 5))
		other_arg += 5;
	return kind == CFG_DEVICE_PCI ? !strcasecmp(arg, other_arg) : !strcmp(arg, other_arg);
}

static void devices_check(const struct checked *files, uint32_t count, struct report *r)
{
	struct finding *f;

	for (uint32_t a = 0, b = 0; pair_next(files, count, &a, &b);) {
		if (!is_same_device(&files[a].cfg, &files[b].cfg))
			continue;
		f = report_add(r, LEVEL_MISSING, "files.device", "%s and %s take the same device, %s",
		        files[a].path, files[b].path, files[b].cfg.device);
		finding_means(f, "One port belongs to one service: the second one does not start.");
		finding_fix(f, "pronk setup --device IF --out %s # with another interface", files[b].path);
		return;
	}
	report_add(r, LEVEL_OK, "files.device", "each has a device of its own");
}

/* A port's address as it will be. */
struct network {
	uint8_t ip[4];
	unsigned prefix;
};

/* 1 both are known, and one reaches what the other does; 2 the address is the same; else 0. */
static int networks_compare(
        const struct checked *a, const struct checked *b, struct network *of_a, struct network *of_b)
{
	if (!machine_address(&a->m, &a->cfg, of_a->ip, &of_a->prefix) ||
	        !machine_address(&b->m, &b->cfg, of_b->ip, &of_b->prefix))
		return 0;
	if (!memcmp(of_a->ip, of_b->ip, 4))
		return 2;
	return cfg_same_network(
	        of_a->ip, of_b->ip, of_a->prefix < of_b->prefix ? of_a->prefix : of_b->prefix);
}

static void address_same(const struct checked *a, const struct checked *b, struct report *r)
{
	struct network n, other;
	struct finding *f;

	networks_compare(a, b, &n, &other);
	f = report_add(r, LEVEL_MISSING, "files.network", "%s and %s have the same address, %u.%u.%u.%u",
	        a->path, b->path, n.ip[0], n.ip[1], n.ip[2], n.ip[3]);
	finding_means(f, "A program uses the first one for it; peers reach either.");
	finding_fix(f, "address = \"A.B.C.D/N\"; # in %s: one of its own", b->path);
}

static void networks_overlap(const struct checked *a, const struct checked *b, struct report *r)
{
	struct network n, other;
	const struct checked *used = a, *unused = b;
	struct finding *f;

	networks_compare(a, b, &n, &other);
	if (other.prefix > n.prefix) {
		used = b;
		unused = a;
	}
	f = report_add(r, LEVEL_WARNING, "files.network",
	        "the networks %u.%u.%u.%u/%u of %s and %u.%u.%u.%u/%u of %s overlap", n.ip[0], n.ip[1],
	        n.ip[2], n.ip[3], n.prefix, a->path, other.ip[0], other.ip[1], other.ip[2], other.ip[3],
	        other.prefix, b->path);
	finding_means(f, "What lies in both is reached through %s: %s.", used->path,
	        other.prefix != n.prefix ? "its prefix is longer" : "it is named first");
	finding_fix(f, "pronk run -c %s ... # for programs that shall use this one alone", unused->path);
}

static void networks_check(const struct checked *files, uint32_t count, struct report *r)
{
	struct network n, other;

	for (int bad = 2; bad > 0; bad--)
		for (uint32_t a = 0, b = 0; pair_next(files, count, &a, &b);) {
			if (networks_compare(&files[a], &files[b], &n, &other) != bad)
				continue;
			if (bad == 2)
				address_same(&files[a], &files[b], r);
			else
				networks_overlap(&files[a], &files[b], r);
			return;
		}
	report_add(r, LEVEL_OK, "files.network", "no two have an address or a network in common");
}

static void modes_check(const struct checked *files, uint32_t count, struct report *r)
{
	const struct checked *first = NULL;
	struct finding *f;

	for (uint32_t i = 0; i < count; i++) {
		if (!files[i].is_good || files[i].cfg.mode != CFG_MODE_INLINE)
			continue;
		if (!first) {
			first = &files[i];
			continue;
		}
		f = report_add(r, LEVEL_MISSING, "files.mode", "%s and %s both have mode = \"inline\"",
		        first->path, files[i].path);
		finding_means(f,
		        "A program can have one stack in it: the network of the second one is the kernel's.");
		finding_fix(f, "mode = \"dedicated\"; # in %s", files[i].path);
		return;
	}
	report_add(r, LEVEL_OK, "files.mode", "%s",
	        first ? "one has its stack in the program" : "all have a service with threads of its own");
}

/* Options of the program, not of a service: the first file's hold. */
static void ignored_check(const struct checked *files, uint32_t count, struct report *r)
{
	for (uint32_t i = 1; i < count; i++) {
		const struct cfg *c = &files[i].cfg, *main = &files[0].cfg;
		char names[64] = "";
		struct finding *f;

		if (!files[i].is_good || !files[0].is_good)
			continue;
		if (c->loopback == CFG_LOOPBACK_PRONK && c->origin[OPTION_loopback] == CFG_ORIGIN_FILE)
			strcat(names, ", loopback");
		if (c->strict && !main->strict)
			strcat(names, ", strict");
		if (c->rule_count && c->rules_origin == CFG_ORIGIN_FILE)
			strcat(names, ", rules");
		if (!names[0])
			continue;
		f = report_add(r, LEVEL_WARNING, "files.first",
		        "%s: not in force for a program that uses %s as well:%s", files[i].path,
		        files[0].path, names + 1);
		finding_means(f, "What holds for a whole program is the first file's.");
		finding_fix(f, "pronk run -c %s ... # names it first, or set them in %s", files[i].path,
		        files[0].path);
		return;
	}
	report_add(r, LEVEL_OK, "files.first", "%s says what holds for a program as a whole", files[0].path);
}

/* Stack threads of two services on one core: cores = "auto" takes the same ones for each. */
static void cores_check(const struct checked *files, uint32_t count, struct report *r)
{
	struct finding *f;

	for (uint32_t a = 0, b = 0; pair_next(files, count, &a, &b);) {
		uint16_t cores[64], other[64];
		int n = machine_stack_cores(&files[a].m, &files[a].cfg, cores, ARRAY_COUNT(cores)),
		    k = machine_stack_cores(&files[b].m, &files[b].cfg, other, ARRAY_COUNT(other));

		for (int i = 0; i < n * k; i++) {
			if (cores[i / k] != other[i % k])
				continue;
			f = report_add(r, LEVEL_WARNING, "files.cores",
			        "%s and %s both have a stack on core %u", files[a].path, files[b].path,
			        cores[i / k]);
			finding_means(f, "They take turns on it: what one does delays the other.");
			finding_fix(f, "cores = \"N\"; # in %s: a core that the other does not have",
			        files[b].path);
			return;
		}
	}
	report_add(r, LEVEL_OK, "files.cores", "no two have a stack on the same core");
}

static void pages_check(const struct checked *files, uint32_t count, struct report *r)
{
	static const char dir[] = "/sys/kernel/mm/hugepages/hugepages-2048kB";
	uint32_t need = 0;
	bool is_must = false;
	struct pages pages;
	struct finding *f;

	for (uint32_t i = 0; i < count; i++) {
		const struct cfg *c = &files[i].cfg;

		/* one that runs has its share */
		if (!files[i].is_good || c->hugepages == CFG_HUGEPAGES_OFF || !files[i].m.service)
			continue;
		need += arena_pages(c, files[i].m.iface_rc ? 0 : files[i].m.iface.mtu);
		is_must |= c->hugepages == CFG_HUGEPAGES_ON;
	}
	pages_read(&pages, files[0].m.root, -1);
	if (pages.left >= (long)need) {
		report_add(r, LEVEL_OK, "files.hugepages", "2 MB: %ld free, together they want about %u more",
		        pages.left, need);
		return;
	}
	f = report_add(r, is_must ? LEVEL_MISSING : LEVEL_NOTE, "files.hugepages",
	        "2 MB: %ld free, together they want about %u more", pages.left, need);
	finding_means(
	        f, is_must ? "hugepages = \"on\" does not start with fewer."
	                   : "Plain pages serve, a little slower. Nothing has to be done for a first try.");
	if (pages.has_any)
		finding_fix(f, "echo %ld | sudo tee %s/nr_hugepages", pages_want(&pages, need), dir);
}

void check_files(const struct checked *files, uint32_t count, struct report *r)
{
	sockets_check(files, count, r);
	devices_check(files, count, r);
	networks_check(files, count, r);
	modes_check(files, count, r);
	ignored_check(files, count, r);
	cores_check(files, count, r);
	pages_check(files, count, r);
}
