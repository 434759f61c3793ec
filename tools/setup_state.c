/* setup_state.c - the record of what `pronk setup` has changed: each change is noted, with what was there
 * before, before it is made, so that an end at any moment leaves a record that takes everything back.
 *
 * One JSON file for each configuration file, replaced as a whole (written beside, synced, renamed). A step
 * that is done again keeps the first "before"; what this run itself found is kept apart, for a failure takes
 * back that and no more. Files outlive a reboot; the kernel's settings do not, so steps about them count only
 * until the machine is started anew (boot_id).
 */
#include "setup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { FILE_MAX = 1 << 20, INTERFACE_WAIT_MS = 5000, STEP_MS = 20 };

struct setup_state {
	char path[PATH_MAX];
	int lock_fd;
	json_t *all;      /* as on disk */
	json_t *steps;    /* of all */
	json_t *original; /* as it was when it was opened, without what a reboot has ended */
	json_t *done;     /* steps of this run, each with what it found; the oldest first */
};

static int fail(char *err, size_t size, int code, const char *fmt, ...) PRINTF_LIKE(4, 5);
static int fail(char *err, size_t size, int code, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(err, size, fmt, args);
	va_end(args);
	return code;
}

static const char *text_of(const json_t *step, const char *key)
{
	const char *text = json_string_value(json_object_get(step, key));

	return text ? text : "";
}

static void boot_id(char *buf, size_t size)
{
	const struct machine real = {.root = ""};

	if (machine_read(&real, buf, size, "/proc/sys/kernel/random/boot_id") <= 0)
		snprintf(buf, size, "unknown");
}

/* --- files --- */

/* A whole file, ended by a zero byte; NULL with errno. */
static char *whole(const char *path, struct stat *st)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *text = NULL;
	ssize_t n = -1;

	if (fd < 0)
		return NULL;
	if (!fstat(fd, st) && st->st_size < FILE_MAX && (text = calloc(1, (size_t)st->st_size + 1)))
		n = read(fd, text, (size_t)st->st_size);
	close(fd);
	if (n >= 0 && strlen(text) == (size_t)n)
		return text;
	free(text);
	errno = EFBIG;
	return NULL;
}

/* Replaces a file as a whole. */
static int put(const char *path, const char *text, mode_t mode, uid_t uid, gid_t gid)
{
	char temp[PATH_MAX];
	size_t size = strlen(text);
	int fd, rc = 0;

	if (snprintf(temp, sizeof(temp), "%s.new", path) >= (int)sizeof(temp))
		return -ENAMETOOLONG;
	fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (write(fd, text, size) != (ssize_t)size || fsync(fd) < 0 || fchmod(fd, mode) < 0 ||
	        fchown(fd, uid, gid) < 0)
		rc = errno ? -errno : -EIO;
	close(fd);
	if (!rc && rename(temp, path) < 0)
		rc = -errno;
	if (rc)
		unlink(temp);
	return rc;
}

/* Makes the folders above path; the topmost that was missing goes into made ("" when none was). */
static int parents_make(const char *path, char *made, size_t size)
{
	char part[PATH_MAX];

	made[0] = 0;
	snprintf(part, sizeof(part), "%s", path);
	for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		if (!mkdir(part, 0755)) {
			if (!made[0])
				snprintf(made, size, "%s", part);
		} else if (errno != EEXIST) {
			return -errno;
		}
		*slash = '/';
	}
	return 0;
}

/* Takes away the empty folders from that of path up to and including top. */
static void parents_drop(const char *path, const char *top)
{
	char part[PATH_MAX];

	if (!top[0])
		return;
	snprintf(part, sizeof(part), "%s", path);
	for (char *slash = strrchr(part, '/'); slash && slash != part; slash = strrchr(part, '/')) {
		*slash = 0;
		if (rmdir(part) < 0 || !strcmp(part, top))
			return;
	}
}

/* --- the record --- */

static int save(struct setup_state *s)
{
	char *text;
	int rc;

	if (!json_array_size(s->steps))
		return unlink(s->path) < 0 && errno != ENOENT ? -errno : 0;
	text = json_dumps(s->all, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
	rc = text ? put(s->path, text, 0600, geteuid(), getegid()) : -ENOMEM;
	free(text);
	return rc;
}

static json_t *step_find(json_t *steps, const char *what, const char *target)
{
	json_t *step;
	size_t i;

	json_array_foreach(steps, i, step)
	{
		if (!strcmp(text_of(step, "what"), what) && !strcmp(text_of(step, "target"), target))
			return step;
	}
	return NULL;
}

/* What is left of an earlier boot means nothing any more: the kernel has forgotten it. */
static bool is_this_boot(const struct setup_state *s)
{
	char now[64];

	boot_id(now, sizeof(now));
	return !strcmp(text_of(s->all, "boot_id"), now);
}

static void boot_renew(struct setup_state *s)
{
	char now[64];
	json_t *step;

	if (is_this_boot(s))
		return;
	for (size_t i = json_array_size(s->steps); i--;) {
		step = json_array_get(s->steps, i);
		if (strcmp(text_of(step, "what"), "file"))
			json_array_remove(s->steps, i);
	}
	boot_id(now, sizeof(now));
	json_object_set_new(s->all, "boot_id", json_string(now));
}

struct setup_state *state_open(const char *dir, const char *config, char *err, size_t err_size)
{
	struct setup_state *s = calloc(1, sizeof(*s));
	char made[PATH_MAX], boot[64];
	json_error_t error;
	size_t n;

	if (!s)
		return NULL;
	s->lock_fd = -1;
	/* '/' of the configuration's path becomes '-' and '-' becomes '--' */
	n = (size_t)snprintf(s->path, sizeof(s->path), "%s/setup", dir);
	for (const char *c = config; *c && n + 16 < sizeof(s->path); c++) {
		s->path[n++] = *c == '/' ? '-' : *c;
		if (*c == '-')
			s->path[n++] = '-';
	}
	snprintf(s->path + n, sizeof(s->path) - n, ".json");
	if (parents_make(s->path, made, sizeof(made)) ||
	        (s->lock_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
		fail(err, err_size, -errno, "cannot use the folder %s: %s", dir, strerror(errno));
		goto fail;
	}
	if (flock(s->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		fail(err, err_size, -errno, "another pronk setup is at work (%s)", dir);
		goto fail;
	}
	if (access(s->path, F_OK) < 0) {
		boot_id(boot, sizeof(boot));
		s->all = json_pack(
		        "{s:i, s:s, s:s, s:[]}", "version", 1, "config", config, "boot_id", boot, "steps");
	} else {
		s->all = json_load_file(s->path, 0, &error);
		if (!s->all) {
			fail(err, err_size, -EINVAL,
			        "%s is damaged (line %d: %s): move it away and undo by hand", s->path,
			        error.line, error.text);
			goto fail;
		}
	}
	s->steps = json_object_get(s->all, "steps");
	if (!json_is_array(s->steps) || json_integer_value(json_object_get(s->all, "version")) != 1) {
		fail(err, err_size, -EINVAL, "%s is no record of this version: move it away and undo by hand",
		        s->path);
		goto fail;
	}
	boot_renew(s);
	s->original = json_deep_copy(s->all);
	s->done = json_array();
	if (!s->original || !s->done) {
		fail(err, err_size, -ENOMEM, "out of memory");
		goto fail;
	}
	return s;
fail:
	state_close(s);
	return NULL;
}

void state_close(struct setup_state *s)
{
	if (!s)
		return;
	json_decref(s->all);
	json_decref(s->original);
	json_decref(s->done);
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	free(s);
}

bool state_is_empty(const struct setup_state *s)
{
	return !json_array_size(s->steps);
}

/* The one with the same subject. */
static json_t *step_like(json_t *steps, const json_t *step)
{
	return step_find(steps, text_of(step, "what"), text_of(step, "target"));
}

/* Adds a step, or renews what it set. Leaves `step` to the caller. */
static int step_add(json_t *steps, const json_t *step)
{
	json_t *old = step_like(steps, step);

	return old ? json_object_set(old, "new", json_object_get(step, "new"))
	           : json_array_append_new(steps, json_deep_copy(step));
}

/* The record says of this subject what it said when it was opened. */
static void step_reset(struct setup_state *s, const json_t *step)
{
	json_t *before = step_like(json_object_get(s->original, "steps"), step),
	       *now = step_like(s->steps, step);

	for (size_t i = json_array_size(s->steps); now && i--;) {
		if (json_array_get(s->steps, i) != now)
			continue;
		if (before)
			json_array_set_new(s->steps, i, json_deep_copy(before));
		else
			json_array_remove(s->steps, i);
		return;
	}
}

/* Notes a step before it is done, with what was found. Takes `step`. */
static int note(struct setup_state *s, json_t *step, char *err, size_t err_size)
{
	int rc;

	if (!step)
		return fail(err, err_size, -ENOMEM, "out of memory");
	rc = step_add(s->steps, step) ? -ENOMEM : save(s);
	if (!rc && step_add(s->done, step))
		rc = -ENOMEM;
	if (rc && !step_like(s->done, step))
		step_reset(s, step); /* it is not done */
	json_decref(step);
	return rc ? fail(err, err_size, rc, "cannot write %s: %s", s->path, strerror(-rc)) : 0;
}

/* --- steps --- */

int state_file(
        struct setup_state *s, const char *path, const char *text, bool force, char *err, size_t err_size)
{
	const json_t *step = step_find(s->steps, "file", path);
	struct stat st = {.st_mode = 0644};
	char *old = whole(path, &st), made[PATH_MAX] = "";
	json_t *mine;
	int rc;

	if (!old && errno != ENOENT && errno != ENOTDIR)
		return fail(err, err_size, -errno, "cannot read %s: %s", path, strerror(errno));
	if (old && !strcmp(old, text) && step) {
		free(old);
		return 0;
	}
	if (old && !force && (!step || strcmp(old, text_of(step, "new")))) {
		free(old);
		return fail(err, err_size, -EEXIST,
		        "%s is there already%s: --out FILE names another one, --force replaces it", path,
		        step ? ", and was changed since setup wrote it" : "");
	}
	mine = json_pack("{s:s, s:s, s:s?, s:i, s:i, s:i, s:s, s:s}", "what", "file", "target", path, "old",
	        old, "mode", (int)(st.st_mode & 07777), "uid", (int)st.st_uid, "gid", (int)st.st_gid, "new",
	        text, "made", "");
	rc = note(s, mine, err, err_size);
	if (!rc && (rc = parents_make(path, made, sizeof(made))))
		fail(err, err_size, rc, "cannot make the folder of %s: %s", path, strerror(-rc));
	if (made[0]) {
		json_object_set_new(step_find(s->steps, "file", path), "made", json_string(made));
		json_object_set_new(step_find(s->done, "file", path), "made", json_string(made));
		save(s);
	}
	if (!rc && (rc = put(path, text, old ? st.st_mode & 07777 : 0644, old ? st.st_uid : geteuid(),
	                    old ? st.st_gid : getegid())))
		fail(err, err_size, rc, "cannot write %s: %s", path, strerror(-rc));
	free(old);
	return rc;
}

int state_pages(struct setup_state *s, const struct machine *m, const char *path, long count, char *err,
        size_t err_size)
{
	long now = machine_number(m, "%s", path), got;
	char old[32], new[32];
	int rc;

	if (now < 0)
		return fail(err, err_size, (int)now, "%s: %s", path, strerror((int)-now));
	if (now >= count)
		return 0; /* never fewer than there are: others may rely on them */
	snprintf(old, sizeof(old), "%ld", now);
	snprintf(new, sizeof(new), "%ld", count);
	rc = note(s,
	        json_pack("{s:s, s:s, s:s, s:s}", "what", "pages", "target", path, "old", old, "new", new),
	        err, err_size);
	if (rc)
		return rc;
	rc = machine_write(m, new, "%s", path);
	got = machine_number(m, "%s", path);
	if (rc)
		return fail(err, err_size, rc, "cannot write %s: %s", path, strerror(-rc));
	if (got < count)
		return fail(err, err_size, -ENOMEM,
		        "the kernel has memory for %ld of %ld hugepages only: free some, or do it after a "
		        "reboot",
		        got, count);
	return 0;
}

int state_module(struct setup_state *s, const struct machine *m, const char *name, char *err, size_t err_size)
{
	int rc;

	if (machine_has(m, "/sys/bus/pci/drivers/%s", name))
		return 0;
	rc = note(s, json_pack("{s:s, s:s, s:s}", "what", "module", "target", name, "new", name), err,
	        err_size);
	if (rc)
		return rc;
	rc = machine_run(m, (const char *const[]){"modprobe", name, NULL});
	if (rc || !machine_has(m, "/sys/bus/pci/drivers/%s", name))
		return fail(
		        err, err_size, -ENOENT, "the driver %s cannot be loaded (modprobe %s)", name, name);
	return 0;
}

static void driver_of(const struct machine *m, const char *device, char *buf, size_t size)
{
	machine_link(m, buf, size, "/sys/bus/pci/devices/%s/driver", device);
}

/* From whatever driver to another; "" for none. */
static int rebind(const struct machine *m, const char *device, const char *override, const char *driver)
{
	char now[64];
	int rc;

	driver_of(m, device, now, sizeof(now));
	rc = machine_write(
	        m, override[0] ? override : "\n", "/sys/bus/pci/devices/%s/driver_override", device);
	if (!rc && now[0] && strcmp(now, driver))
		rc = machine_write(m, device, "/sys/bus/pci/drivers/%s/unbind", now);
	if (!rc && driver[0] && strcmp(now, driver))
		rc = machine_write(m, device, "/sys/bus/pci/drivers_probe");
	driver_of(m, device, now, sizeof(now));
	return rc ? rc : strcmp(now, driver) ? -EIO : 0;
}

/* What the kernel had on the interface that goes with its driver. */
static json_t *interface_note(const struct iface *i)
{
	json_t *addrs = json_array(), *all;
	char text[32];

	if (!i) {
		json_decref(addrs);
		return json_null();
	}
	for (uint32_t k = 0; k < i->addr_count; k++) {
		const uint8_t *a = i->addr[k].ip;

		snprintf(text, sizeof(text), "%u.%u.%u.%u/%u", a[0], a[1], a[2], a[3], i->addr[k].prefix);
		json_array_append_new(addrs, json_string(text));
	}
	all = json_pack("{s:s, s:b, s:i, s:o}", "name", i->name, "up", (int)i->is_up, "mtu", (int)i->mtu,
	        "addresses", addrs);
	if (all && i->has_gateway) {
		snprintf(text, sizeof(text), "%u.%u.%u.%u", i->gateway[0], i->gateway[1], i->gateway[2],
		        i->gateway[3]);
		json_object_set_new(all, "gateway", json_string(text));
		json_object_set_new(all, "gateway_metric", json_integer(i->gateway_metric));
	}
	return all;
}

int state_bind(struct setup_state *s, const struct machine *m, const char *device, const char *driver,
        const struct iface *iface, char *err, size_t err_size)
{
	char old[64], override[64];
	int rc;

	driver_of(m, device, old, sizeof(old));
	if (!strcmp(old, driver))
		return 0;
	machine_read(m, override, sizeof(override), "/sys/bus/pci/devices/%s/driver_override", device);
	if (!strcmp(override, "(null)"))
		override[0] = 0;
	rc = note(s,
	        json_pack("{s:s, s:s, s:s, s:s, s:s, s:o}", "what", "bind", "target", device, "old", old,
	                "override", override, "new", driver, "interface", interface_note(iface)),
	        err, err_size);
	if (rc)
		return rc;
	rc = rebind(m, device, driver, driver);
	return rc ? fail(err, err_size, rc,
	                    "cannot bind %s to %s: %s (`dmesg` has the kernel's reason; is there an IOMMU? "
	                    "`pronk check`)",
	                    device, driver, strerror(-rc))
	          : 0;
}

/* --- and back --- */

static int file_undo(const json_t *step, bool force, char *said, size_t size)
{
	const char *path = text_of(step, "target"), *old = json_string_value(json_object_get(step, "old"));
	struct stat st;
	char *now = whole(path, &st);
	int rc = 0;

	if (now && strcmp(now, text_of(step, "new")) && (!old || strcmp(now, old)) && !force) {
		free(now);
		return fail(said, size, -EBUSY,
		        "%s was changed since setup wrote it: left alone (--force takes it back all the same)",
		        path);
	}
	if (old && (!now || strcmp(now, old))) {
		rc = put(path, old, (mode_t)json_integer_value(json_object_get(step, "mode")),
		        (uid_t)json_integer_value(json_object_get(step, "uid")),
		        (gid_t)json_integer_value(json_object_get(step, "gid")));
		fail(said, size, 0, "%s is as before", path);
	} else if (!old && now) {
		rc = unlink(path) < 0 ? -errno : 0;
		fail(said, size, 0, "%s is gone", path);
	}
	if (!rc && !old)
		parents_drop(path, text_of(step, "made"));
	if (rc)
		fail(said, size, rc, "%s: %s", path, strerror(-rc));
	free(now);
	return rc;
}

/* Whether another configuration's record has brought a file of hugepages to where it is now; who gets that
 * configuration. The folder's lock keeps the others' records as they are. */
static bool pages_of_other(const struct setup_state *s, const char *path, long now, char *who, size_t size)
{
	const char *mine = strrchr(s->path, '/') + 1;
	int fd = openat(s->lock_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *d;
	bool found = false;

	if (!dir) {
		if (fd >= 0)
			close(fd);
		return false;
	}
	while (!found && (d = readdir(dir))) {
		const char *end = strrchr(d->d_name, '.');
		const json_t *step;
		json_t *other;
		int file;

		if (strncmp(d->d_name, "setup", 5) || !end || strcmp(end, ".json") ||
		        !strcmp(d->d_name, mine))
			continue;
		file = openat(s->lock_fd, d->d_name, O_RDONLY | O_CLOEXEC);
		if (file < 0)
			continue;
		other = json_loadfd(file, 0, NULL);
		close(file);
		step = step_find(json_object_get(other, "steps"), "pages", path);
		/* s is of this boot since it was opened */
		found = step && !strcmp(text_of(other, "boot_id"), text_of(s->all, "boot_id")) &&
		        now > atol(text_of(step, "old")) && now <= atol(text_of(step, "new"));
		if (found)
			snprintf(who, size, "%s", text_of(other, "config"));
		json_decref(other);
	}
	closedir(dir);
	return found;
}

static int pages_undo(
        const struct setup_state *s, const struct machine *m, const json_t *step, char *said, size_t size)
{
	char who[PATH_MAX];
	const char *path = text_of(step, "target");
	long now = machine_number(m, "%s", path), old = atol(text_of(step, "old")),
	     new = atol(text_of(step, "new"));
	int rc;

	if (now == old)
		return 0;
	/* what came on top goes first; until then this step has to stay, for nobody else knows of it */
	if (new < now && pages_of_other(s, path, now, who, sizeof(who)))
		return fail(said, size, -EAGAIN,
		        "%s is %ld, with what setup added for %.256s: take that back first, then this again",
		        path, now, who);
	if (now > new || now < old)
		return fail(said, size, 0, "%s is %ld, which somebody else has set: left alone", path, now);
	rc = machine_write(m, text_of(step, "old"), "%s", path);
	if (rc || machine_number(m, "%s", path) != old)
		return fail(said, size, rc ? rc : -EBUSY, "%s: %s", path,
		        rc ? strerror(-rc) : "some pages are in use");
	return fail(said, size, 0, "%s is %ld again", path, old);
}

static void interface_restore(const struct machine *m, const char *device, const json_t *i)
{
	const struct timespec nap = {.tv_nsec = STEP_MS * 1000000l};
	const char *name = text_of(i, "name");
	json_t *a;
	char mtu[16], metric[16];
	size_t k;

	/* the driver makes its interface in its own time */
	for (int waited = 0;
	        !machine_has(m, "/sys/bus/pci/devices/%s/net/%s", device, name) && waited < INTERFACE_WAIT_MS;
	        waited += STEP_MS)
		nanosleep(&nap, NULL);
	snprintf(mtu, sizeof(mtu), "%d", (int)json_integer_value(json_object_get(i, "mtu")));
	machine_run(m, (const char *const[]){"ip", "link", "set", "dev", name, "mtu", mtu, NULL});
	if (json_is_true(json_object_get(i, "up")))
		machine_run(m, (const char *const[]){"ip", "link", "set", "dev", name, "up", NULL});
	json_array_foreach(json_object_get(i, "addresses"), k, a)
	{
		machine_run(m, (const char *const[]){
		                       "ip", "addr", "replace", json_string_value(a), "dev", name, NULL});
	}
	if (!*text_of(i, "gateway"))
		return;
	/* beside the default routes that there are, not in the place of one: another interface's may be what
	 * the machine is reached by */
	snprintf(metric, sizeof(metric), "%u",
	        (unsigned)json_integer_value(json_object_get(i, "gateway_metric")));
	machine_run(m, (const char *const[]){"ip", "route", "append", "default", "via", text_of(i, "gateway"),
	                       "dev", name, "metric", metric, NULL});
}

static int bind_undo(const struct machine *m, const json_t *step, char *said, size_t size)
{
	const char *device = text_of(step, "target"), *old = text_of(step, "old");
	const json_t *i = json_object_get(step, "interface");
	char now[64];
	int rc;

	driver_of(m, device, now, sizeof(now));
	if (now[0] && strcmp(now, text_of(step, "new")) && strcmp(now, old))
		return fail(said, size, 0, "%s has driver %s, which somebody else has set: left alone",
		        device, now);
	rc = rebind(m, device, text_of(step, "override"), old);
	if (rc)
		return fail(said, size, rc, "cannot give %s back to %s: %s", device,
		        old[0] ? old : "no driver", strerror(-rc));
	/* somebody else has brought it back, or it never went: the interface is theirs */
	if (!strcmp(now, old))
		return fail(said, size, 0, "%s has %s already: its interface is left alone", device,
		        old[0] ? old : "no driver");
	if (json_is_object(i))
		interface_restore(m, device, i);
	return fail(said, size, 0, "%s has %s again", device, old[0] ? old : "no driver");
}

static int module_undo(const struct machine *m, const json_t *step, char *said, size_t size)
{
	const char *name = text_of(step, "target");

	if (!machine_has(m, "/sys/bus/pci/drivers/%s", name))
		return 0;
	/* others may use it by now; then it stays, which harms nobody */
	if (machine_run(m, (const char *const[]){"modprobe", "-r", name, NULL}))
		return fail(said, size, 0, "the driver %s stays loaded: it is in use", name);
	return fail(said, size, 0, "the driver %s is unloaded", name);
}

static int step_undo(const struct setup_state *s, const struct machine *m, const json_t *step, bool force,
        char *said, size_t size)
{
	const char *what = text_of(step, "what");

	said[0] = 0;
	return !strcmp(what, "file")    ? file_undo(step, force, said, size)
	       : !strcmp(what, "pages") ? pages_undo(s, m, step, said, size)
	       : !strcmp(what, "bind")  ? bind_undo(m, step, said, size)
	       : !strcmp(what, "module")
	               ? module_undo(m, step, said, size)
	               : fail(said, size, -EINVAL, "a step \"%s\" that this version does not know", what);
}

int state_undo(struct setup_state *s, const struct machine *m, bool force, FILE *out)
{
	char said[LINE_SIZE];
	int left = 0;

	save(s);
	for (size_t i = json_array_size(s->steps); i--;) {
		int rc = step_undo(s, m, json_array_get(s->steps, i), force, said, sizeof(said));

		if (said[0])
			fprintf(out, "%s\n", said);
		if (rc)
			left++;
		else
			json_array_remove(s->steps, i);
		save(s);
	}
	return left;
}

int state_roll_back(struct setup_state *s, const struct machine *m, FILE *out)
{
	char said[LINE_SIZE];
	int left = 0;

	for (size_t i = json_array_size(s->done); i--;) {
		const json_t *step = json_array_get(s->done, i);

		if (!step_undo(s, m, step, true, said, sizeof(said))) {
			step_reset(s, step);
			continue;
		}
		fprintf(out, "pronk: %s\n", said);
		left++;
	}
	json_array_clear(s->done);
	save(s);
	return left;
}
