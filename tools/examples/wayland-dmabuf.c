// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * wayland-dmabuf: memory of the program as the contents of a window, without a copy
 *
 *   for p in stable/xdg-shell/xdg-shell unstable/linux-dmabuf/linux-dmabuf-unstable-v1; do
 *           wayland-scanner client-header /usr/share/wayland-protocols/$p.xml $(basename $p).h
 *           wayland-scanner private-code /usr/share/wayland-protocols/$p.xml $(basename $p).c
 *   done
 *   cc -I. -o wayland-dmabuf wayland-dmabuf.c xdg-shell.c linux-dmabuf-unstable-v1.c \
 *           $(pkg-config --cflags --libs libvmemexp wayland-client)
 *   ./wayland-dmabuf     until the window is closed; copies where dma-bufs are not taken
 */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <wayland-client.h>

#include <libvmemexp.h>
#include "linux-dmabuf-unstable-v1.h"
#include "xdg-shell.h"

#define WIDTH	320
#define HEIGHT	200
#define STRIDE	(WIDTH * 4)	/* GPUs want multiples of 256 */
#define FORMAT	0x34325258	/* "XR24" of drm_fourcc.h */

static struct wl_compositor *compositor;
static struct wl_shm *shm;
static struct xdg_wm_base *shell;
static struct zwp_linux_dmabuf_v1 *dmabufs;
static struct wl_buffer *imported;
static int refused, configured;

static void global(void *data, struct wl_registry *registry, uint32_t name, const char *interface,
		   uint32_t version)
{
	if (!strcmp(interface, wl_compositor_interface.name))
		compositor = wl_registry_bind(registry, name, &wl_compositor_interface, 1);
	else if (!strcmp(interface, wl_shm_interface.name))
		shm = wl_registry_bind(registry, name, &wl_shm_interface, 1);
	else if (!strcmp(interface, xdg_wm_base_interface.name))
		shell = wl_registry_bind(registry, name, &xdg_wm_base_interface, 1);
	else if (!strcmp(interface, zwp_linux_dmabuf_v1_interface.name) && version >= 3)
		dmabufs = wl_registry_bind(registry, name, &zwp_linux_dmabuf_v1_interface, 3);
}

static void created(void *data, struct zwp_linux_buffer_params_v1 *params, struct wl_buffer *buffer)
{
	imported = buffer;
	refused = !buffer;
}

static void failed(void *data, struct zwp_linux_buffer_params_v1 *params)
{
	created(data, params, NULL);
}

static void configure(void *data, struct xdg_surface *surface, uint32_t serial)
{
	xdg_surface_ack_configure(surface, serial);
	configured = 1;
}

static void end(void *data, struct xdg_toplevel *toplevel)
{
	exit(EXIT_SUCCESS);
}

/* The picture has its size. */
static void resize(void *data, struct xdg_toplevel *toplevel, int32_t width, int32_t height,
		   struct wl_array *states)
{
}

static void pong(void *data, struct xdg_wm_base *base, uint32_t serial)
{
	xdg_wm_base_pong(base, serial);
}

static const struct wl_registry_listener registry_listener = { .global = global };
static const struct zwp_linux_buffer_params_v1_listener params_listener = { created, failed };
static const struct xdg_surface_listener surface_listener = { configure };
static const struct xdg_toplevel_listener top_listener = { .configure = resize, .close = end };
static const struct xdg_wm_base_listener shell_listener = { pong };

/* The linear modifier is 0. */
static void import(struct wl_display *display, int dmabuf)
{
	struct zwp_linux_buffer_params_v1 *params = zwp_linux_dmabuf_v1_create_params(dmabufs);

	zwp_linux_buffer_params_v1_add_listener(params, &params_listener, NULL);
	zwp_linux_buffer_params_v1_add(params, dmabuf, 0, 0, STRIDE, 0, 0);
	zwp_linux_buffer_params_v1_create(params, WIDTH, HEIGHT, FORMAT, 0);
	while (!imported && !refused && wl_display_dispatch(display) >= 0)
		;
}

static struct wl_buffer *copy(const void *memory)
{
	int fd = memfd_create("picture", MFD_CLOEXEC);

	if (fd < 0 || write(fd, memory, STRIDE * HEIGHT) != STRIDE * HEIGHT)
		err(EXIT_FAILURE, "no shared memory");
	return wl_shm_pool_create_buffer(wl_shm_create_pool(shm, fd, STRIDE * HEIGHT), 0, WIDTH,
					 HEIGHT, STRIDE, WL_SHM_FORMAT_XRGB8888);
}

int main(void)
{
	struct wl_display *display = wl_display_connect(NULL);
	size_t size = vmemexp_aligned_size(STRIDE * HEIGHT);
	uint32_t *memory = aligned_alloc(sysconf(_SC_PAGESIZE), size);
	struct vmemexp *v = vmemexp_open(NULL, NULL);
	struct vmemexp_buf *buf = NULL;
	struct xdg_surface *window;
	struct wl_surface *surface;

	if (!display)
		errx(EXIT_FAILURE, "no compositor");
	wl_registry_add_listener(wl_display_get_registry(display), &registry_listener, NULL);
	wl_display_roundtrip(display);
	if (!compositor || !shell || !shm)
		errx(EXIT_FAILURE, "the compositor has no windows");
	xdg_wm_base_add_listener(shell, &shell_listener, NULL);

	for (int i = 0; i < WIDTH * HEIGHT; i++)
		memory[i] = (i % WIDTH & 255) << 16 | i / WIDTH << 8 | (i / 9 & 255);
	if (v && dmabufs && !vmemexp_export(v, memory, size, 0, &buf, NULL))
		import(display, vmemexp_buf_fd(buf));

	surface = wl_compositor_create_surface(compositor);
	window = xdg_wm_base_get_xdg_surface(shell, surface);
	xdg_surface_add_listener(window, &surface_listener, NULL);
	xdg_toplevel_add_listener(xdg_surface_get_toplevel(window), &top_listener, NULL);
	wl_surface_commit(surface);
	while (!configured && wl_display_dispatch(display) >= 0)
		;
	wl_surface_attach(surface, imported ? imported : copy(memory), 0, 0);
	wl_surface_damage(surface, 0, 0, WIDTH, HEIGHT);
	wl_surface_commit(surface);
	wl_display_roundtrip(display);
	fprintf(stderr, "%s\n", imported ? "imported" : "copied");
	while (wl_display_dispatch(display) >= 0)
		;
	return EXIT_FAILURE;
}
