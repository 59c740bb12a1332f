// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * egl-texture: memory of the program as a texture of OpenGL ES, without a copy
 *
 *   cc -o egl-texture egl-texture.c $(pkg-config --cflags --libs libvmemexp egl glesv2)
 *   ./egl-texture >picture.ppm
 *
 * Draws the texture into a picture and writes that. Needs no screen; Mesa takes a GPU, or
 * llvmpipe with LIBGL_ALWAYS_SOFTWARE=1, which imports dma-bufs in Debian 13, not in 12.
 */
#include <EGL/egl.h>
#include <EGL/eglext.h>
#include <GLES2/gl2.h>
#include <GLES2/gl2ext.h>
#include <err.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <libvmemexp.h>

#define WIDTH	256
#define HEIGHT	128
/* Many GPUs want rows that begin at multiples of 256 bytes. */
#define STRIDE	(WIDTH * 4)

/* "XR24" of drm_fourcc.h: in memory blue, green, red, unused. */
#define FORMAT	0x34325258

static const char vertex_shader[] =
	"attribute vec2 at; varying vec2 p;"
	"void main() { p = at * 0.5 + 0.5; gl_Position = vec4(at, 0, 1); }";
static const char fragment_shader[] =
	"precision mediump float; varying vec2 p; uniform sampler2D t;"
	"void main() { gl_FragColor = texture2D(t, p); }";

static void need(int ok, const char *what)
{
	if (!ok)
		errx(EXIT_FAILURE, "%s (EGL %#x, GL %#x)", what, eglGetError(), glGetError());
}

static EGLDisplay open_display(void)
{
	PFNEGLGETPLATFORMDISPLAYEXTPROC get_display =
		(PFNEGLGETPLATFORMDISPLAYEXTPROC)eglGetProcAddress("eglGetPlatformDisplayEXT");
	EGLDisplay display = get_display ?
		get_display(EGL_PLATFORM_SURFACELESS_MESA, EGL_DEFAULT_DISPLAY, NULL) : NULL;
	const EGLint wish[] = { EGL_CONTEXT_CLIENT_VERSION, 2, EGL_NONE };
	EGLContext context;

	if (!display || !eglInitialize(display, NULL, NULL))
		errx(EXIT_FAILURE, "no EGL without a screen");
	eglBindAPI(EGL_OPENGL_ES_API);
	context = eglCreateContext(display, EGL_NO_CONFIG_KHR, EGL_NO_CONTEXT, wish);
	need(eglMakeCurrent(display, EGL_NO_SURFACE, EGL_NO_SURFACE, context), "no context");
	fprintf(stderr, "%s\n", glGetString(GL_RENDERER));
	return display;
}

static void make_texture(EGLDisplay display, int dmabuf)
{
	PFNEGLCREATEIMAGEKHRPROC create_image =
		(PFNEGLCREATEIMAGEKHRPROC)eglGetProcAddress("eglCreateImageKHR");
	PFNGLEGLIMAGETARGETTEXTURE2DOESPROC image_target = (void *)
		eglGetProcAddress("glEGLImageTargetTexture2DOES");
	const EGLint attributes[] = {
		EGL_WIDTH, WIDTH, EGL_HEIGHT, HEIGHT, EGL_LINUX_DRM_FOURCC_EXT, FORMAT,
		EGL_DMA_BUF_PLANE0_FD_EXT, dmabuf, EGL_DMA_BUF_PLANE0_OFFSET_EXT, 0,
		EGL_DMA_BUF_PLANE0_PITCH_EXT, STRIDE, EGL_NONE
	};
	EGLImageKHR image;
	GLuint texture;

	/* EGL keeps a duplicate of the descriptor. */
	image = create_image(display, EGL_NO_CONTEXT, EGL_LINUX_DMA_BUF_EXT, NULL, attributes);
	need(image != EGL_NO_IMAGE_KHR, "the dma-buf is not imported");
	glGenTextures(1, &texture);
	glBindTexture(GL_TEXTURE_2D, texture);
	image_target(GL_TEXTURE_2D, image);
	glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MIN_FILTER, GL_NEAREST);
	glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MAG_FILTER, GL_NEAREST);
	need(glGetError() == GL_NO_ERROR, "it is no texture");
}

/* Two triangles that cover the picture, into a framebuffer of OpenGL's own. */
static void render(void)
{
	static const float corners[] = { -1, -1, 1, -1, -1, 1, 1, 1 };
	const char * const sources[] = { vertex_shader, fragment_shader };
	const GLenum kinds[] = { GL_VERTEX_SHADER, GL_FRAGMENT_SHADER };
	GLuint program = glCreateProgram(), target, framebuffer;
	int i;

	for (i = 0; i < 2; i++) {
		GLuint shader = glCreateShader(kinds[i]);

		glShaderSource(shader, 1, &sources[i], NULL);
		glCompileShader(shader);
		glAttachShader(program, shader);
	}
	glBindAttribLocation(program, 0, "at");
	glLinkProgram(program);
	glUseProgram(program);
	glGenRenderbuffers(1, &target);
	glBindRenderbuffer(GL_RENDERBUFFER, target);
	glRenderbufferStorage(GL_RENDERBUFFER, GL_RGBA8_OES, WIDTH, HEIGHT);
	glGenFramebuffers(1, &framebuffer);
	glBindFramebuffer(GL_FRAMEBUFFER, framebuffer);
	glFramebufferRenderbuffer(GL_FRAMEBUFFER, GL_COLOR_ATTACHMENT0, GL_RENDERBUFFER, target);
	glViewport(0, 0, WIDTH, HEIGHT);
	glVertexAttribPointer(0, 2, GL_FLOAT, GL_FALSE, 0, corners);
	glEnableVertexAttribArray(0);
	glDrawArrays(GL_TRIANGLE_STRIP, 0, 4);
	need(glGetError() == GL_NO_ERROR, "nothing is drawn");
}

int main(void)
{
	EGLDisplay display = open_display();
	static uint8_t pixels[HEIGHT][WIDTH][4];
	struct vmemexp_error error;
	struct vmemexp_buf *buf;
	unsigned int x, y;
	struct vmemexp *v;
	uint32_t *memory;
	char why[256];

	memory = aligned_alloc(sysconf(_SC_PAGESIZE), vmemexp_aligned_size(STRIDE * HEIGHT));
	for (y = 0; y < HEIGHT; y++)
		for (x = 0; x < WIDTH; x++)
			memory[y * WIDTH + x] = x << 16 | y << 8 | (x ^ y);
	v = vmemexp_open(NULL, &error);
	if (!v || vmemexp_export(v, memory, vmemexp_aligned_size(STRIDE * HEIGHT), 0, &buf, &error))
		errx(EXIT_FAILURE, "no export: %s", vmemexp_strerror(&error, why, sizeof(why)));
	make_texture(display, vmemexp_buf_fd(buf));
	render();

	glReadPixels(0, 0, WIDTH, HEIGHT, GL_RGBA, GL_UNSIGNED_BYTE, pixels);
	printf("P6\n%u %u\n255\n", WIDTH, HEIGHT);
	for (y = 0; y < HEIGHT; y++)
		for (x = 0; x < WIDTH; x++)
			fwrite(pixels[y][x], 3, 1, stdout);
	return fflush(stdout) ? EXIT_FAILURE : EXIT_SUCCESS;
}
