/* frames.h - builders of test frames. Addresses are 10.0.0.1 -> 10.0.0.2 and fd00::1 -> fd00::2; checksums
 * are left 0. */
#pragma once
#include <stdint.h>
#include <string.h>

static inline void frame_put16(uint8_t *p, uint32_t value)
{
	p[0] = (uint8_t)(value >> 8);
	p[1] = (uint8_t)value;
}

/* IPv4 with proto 6 or 17 and payload bytes behind the TCP or UDP header; returns the frame's size. */
static inline uint32_t frame_ip4(
        uint8_t *frame, uint8_t proto, uint16_t source, uint16_t dest, uint32_t payload)
{
	uint32_t header = proto == 6 ? 20 : 8;
	uint8_t *ip = frame + 14, *l4 = ip + 20;

	memset(frame, 0, 14 + 20 + header);
	frame_put16(frame + 12, 0x0800);
	ip[0] = 0x45;
	frame_put16(ip + 2, 20 + header + payload);
	ip[8] = 64;
	ip[9] = proto;
	memcpy(ip + 12, (uint8_t[]){10, 0, 0, 1, 10, 0, 0, 2}, 8);
	frame_put16(l4, source);
	frame_put16(l4 + 2, dest);
	if (proto == 6)
		l4[12] = 0x50;
	else
		frame_put16(l4 + 4, header + payload);
	for (uint32_t i = 0; i < payload; i++)
		l4[header + i] = (uint8_t)(i * 7 + 1);
	return 14 + 20 + header + payload;
}

static inline uint32_t frame_ip6(
        uint8_t *frame, uint8_t proto, uint16_t source, uint16_t dest, uint32_t payload)
{
	uint32_t header = proto == 6 ? 20 : 8;
	uint8_t *ip = frame + 14, *l4 = ip + 40;

	memset(frame, 0, 14 + 40 + header);
	frame_put16(frame + 12, 0x86dd);
	ip[0] = 0x60;
	frame_put16(ip + 4, header + payload);
	ip[6] = proto;
	ip[7] = 64;
	ip[8] = ip[24] = 0xfd;
	ip[23] = 1;
	ip[39] = 2;
	frame_put16(l4, source);
	frame_put16(l4 + 2, dest);
	if (proto == 6)
		l4[12] = 0x50;
	else
		frame_put16(l4 + 4, header + payload);
	for (uint32_t i = 0; i < payload; i++)
		l4[header + i] = (uint8_t)(i * 7 + 1);
	return 14 + 40 + header + payload;
}

static inline uint32_t frame_arp(uint8_t *frame)
{
	memset(frame, 0, 60);
	memset(frame, 0xff, 6);
	frame_put16(frame + 12, 0x0806);
	frame[15] = 1;
	frame[16] = 8;
	frame[18] = 6;
	frame[19] = 4;
	frame[21] = 1;
	return 60;
}

/* Folded one's complement sum of big-endian words; the reference for the tests. */
static inline uint32_t frame_sum(uint32_t sum, const uint8_t *p, uint32_t size)
{
	for (uint32_t i = 0; i < size; i++)
		sum += i % 2 == 0 ? (uint32_t)p[i] << 8 : p[i];
	while (sum > 0xffff)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}
