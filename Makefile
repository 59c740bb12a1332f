# SPDX-License-Identifier: GPL-2.0
#
# The verbs; "make help" lists them. Kbuild, tests/Makefile and tools/Makefile describe the
# builds.

KDIR ?= /lib/modules/$(shell uname -r)/build
PREFIX ?= /usr
DESTDIR ?=

all: ## build vmemexp.ko for the running kernel (or KDIR=) here
	$(MAKE) -C $(KDIR) M=$(CURDIR) modules

install: install-module ## install the module and its system files, the command and the library
	$(MAKE) -C tools install DESTDIR=$(stage) PREFIX=$(PREFIX)

install-module: all ## install the same without the command, which needs libraries
	$(MAKE) -C $(KDIR) M=$(CURDIR) INSTALL_MOD_PATH=$(stage) INSTALL_MOD_DIR=updates \
		DEPMOD=true modules_install
	install -D -m 0644 tools/packaging/udev/60-vmemexp.rules $(udev_rule)
	install -D -m 0644 tools/packaging/modules-load.d/vmemexp.conf $(load_list)
	install -D -m 0644 include/uapi/vmemexp.h $(header)
	$(if $(stage),,depmod $(release))

uninstall: ## remove the files of install (with the same DESTDIR=, PREFIX=, KDIR=)
	rm -f $(stage)/lib/modules/$(release)/updates/vmemexp.ko*
	rm -f $(udev_rule) $(load_list) $(header)
	$(MAKE) -C tools uninstall DESTDIR=$(stage) PREFIX=$(PREFIX)
	$(if $(stage),,depmod $(release))

# Absolute, for the makes that run in other directories.
stage := $(abspath $(DESTDIR))
udev_rule := $(stage)$(PREFIX)/lib/udev/rules.d/60-vmemexp.rules
load_list := $(stage)$(PREFIX)/lib/modules-load.d/vmemexp.conf
header := $(stage)$(PREFIX)/include/vmemexp.h
release = $(or $(shell cat $(KDIR)/include/config/kernel.release),$(error no kernel in KDIR=$(KDIR)))

deb: ## build Debian packages for DKMS, the command and the library, in out/deb
	tools/dev/deps install deb
	tools/packaging/build-deb

rpm: ## build rpm packages of the same, in out/rpm
	tools/dev/deps install deb
	tools/packaging/build-rpm

run: ## show a malloc'ed picture on a screen in QEMU, and compare every pixel
	tools/dev/deps install run
	tools/dev/run-demo

run-rtos: ## show the frames of a second CPU beside Linux, in QEMU, and compare every pixel
	tools/dev/deps install arm
	tests/rtos/run

check: ## before each commit: lint, the harness, test programs on four kernels, devices, examples
	tools/dev/deps install check
	tests/suites/check

lint: ## the part of check that needs no guest: style, warnings, sparse, cocci, docs, shell
	tools/dev/deps install check
	tools/dev/lint

check-kernels: ## run all test programs on every kernel that Debian has now: a table
	tools/dev/deps install check
	tests/suites/kernels

check-coherency: ## test DMA coherency: direct, narrow masks, swiotlb, IOMMUs: a table
	tools/dev/deps install check
	tests/suites/coherency

check-display: ## show memory on a display that fetches it by itself, in QEMU: a table
	tools/dev/deps install check
	tests/suites/display

check-examples: ## run the examples for users, each with a real partner: a table
	tools/dev/deps install check examples
	tests/suites/examples

check-gstreamer: ## run pipelines with the element for GStreamer, 1.22 and 1.26: a table
	tools/dev/deps install check
	tests/suites/gstreamer

check-userland: ## run the command and DRM's tests on 32- and 64-bit ARM: a table
	tools/dev/deps install arm
	tests/suites/userland

check-builds: ## build all modules for every kernel that Debian has now: a table
	tools/dev/deps install arm
	tests/suites/builds

check-install: ## install and remove it in every way, in directories and in QEMU
	tools/dev/deps install check deb
	tests/suites/install

check-debug: ## run all tests and a fuzzer under KASAN, lockdep and fault injection: coverage
	tools/dev/deps install debug
	tests/suites/debug

check-rest: ## run all that check leaves out of the other check-..., in some four hours
	tools/dev/deps install check deb debug examples
	tests/suites/rest

check-all: ## before a release: check, then check-rest
	$(MAKE) check
	$(MAKE) check-rest

# The old name of check-builds.
matrix: check-builds

bench: ## measure its cost beside that of all alternatives, in QEMU
	tools/dev/deps install bench
	tests/bench/run

doc: ## regenerate the reference from the header, tables of numbers, and the manual page
	tools/dev/deps install doc
	tools/dev/bench-doc
	tools/dev/api-doc > Documentation/vmemexp-api.rst.new
	mv Documentation/vmemexp-api.rst.new Documentation/vmemexp-api.rst
	tools/dev/inspect-doc
	$(MAKE) -C tools man

clean: ## remove build/, out/ and the module's objects
	rm -rf build out
	rm -f *.o *.ko *.mod *.mod.c .*.cmd modules.order Module.symvers

distclean-cache: ## remove the kernels and packages that the tests have fetched
	rm -rf $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/vmemexp

help: ## print this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

.PHONY: all install install-module uninstall deb rpm run run-rtos check lint check-kernels \
	check-coherency check-display check-examples check-gstreamer check-userland check-builds check-install \
	check-debug check-rest check-all matrix bench doc clean distclean-cache help
