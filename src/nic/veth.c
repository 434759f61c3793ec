/* veth.c - afpacket on a veth: keeps the peer from sending merged segments.
 *
 * Control thread. A veth's kernel peer normally hands over TCP segments of up to 64 KB and leaves the cutting
 * to a wire that never comes; they do not fit a packet ring. The kernel takes TSO and GSO away from a veth's
 * peer while its end runs an XDP program, so a program that passes everything is attached for as long as the
 * port is open. The attachment is a BPF link: it ends with the process, also after kill -9.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <string.h>
#include <unistd.h>

#include "nic_int.h"

int veth_calm_peer(const char *name)
{
	/* r0 = XDP_PASS; exit */
	static const struct bpf_insn pass[] = {
	        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = XDP_PASS},
	        {.code = BPF_JMP | BPF_EXIT},
	};
	LIBBPF_OPTS(bpf_link_create_opts, opts, .flags = XDP_FLAGS_DRV_MODE);
	int prog, link, ret;

	if (!kernel_if_is_driver(name, "veth"))
		return -ENOTSUP;
	prog = bpf_prog_load(
	        BPF_PROG_TYPE_XDP, "pronk_pass", "BSD", pass, sizeof(pass) / sizeof(pass[0]), NULL);
	if (prog < 0)
		return -errno;
	link = bpf_link_create(prog, (int)if_nametoindex(name), BPF_XDP, &opts);
	ret = link < 0 ? -errno : link;
	close(prog);
	return ret;
}
