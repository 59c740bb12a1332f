# SPDX-License-Identifier: GPL-2.0
#
# The verbs; "make help" lists them. What is built, and how, is said in Kbuild,
# tests/Makefile and tools/Makefile.

KDIR ?= /lib/modules/$(shell uname -r)/build
PREFIX ?= /usr
DESTDIR ?=

all: ## build vmemexp.ko for the running kernel (or KDIR=) here
	$(MAKE) -C $(KDIR) M=$(CURDIR) modules

install: install-module ## the module, what the system needs with it, and the command
	$(MAKE) -C tools install DESTDIR=$(stage) PREFIX=$(PREFIX)

install-module: all ## the same without the command, which needs libraries
	$(MAKE) -C $(KDIR) M=$(CURDIR) INSTALL_MOD_PATH=$(stage) INSTALL_MOD_DIR=updates \
		DEPMOD=true modules_install
	install -D -m 0644 tools/udev/60-vmemexp.rules $(udev_rule)
	install -D -m 0644 tools/modules-load.d/vmemexp.conf $(load_list)
	install -D -m 0644 include/uapi/vmemexp.h $(header)
	$(if $(stage),,depmod $(release))

uninstall: ## remove what install has put there (with the same DESTDIR=, PREFIX=, KDIR=)
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

deb: ## Debian packages for DKMS and for the command, in out/deb
	tools/deps install deb
	tools/packaging/build-deb

run: ## show a malloc'ed picture on a screen in QEMU, and compare every pixel
	tools/deps install run
	tools/run-demo

run-rtos: ## show what a second CPU draws beside Linux, in QEMU, and compare every pixel
	tools/deps install arm
	tests/rtos/run

check: ## all tests that a change must pass
	tools/deps install check
	tests/check

check-coherency: ## devices and CPU see the same, whatever is between them: a table
	tools/deps install check
	tests/check-coherency

check-debug: ## all tests and the fuzzer under KASAN, lockdep, fault injection; coverage
	tools/deps install debug
	tests/check-debug

check-install: ## install and remove it in every way, in directories and in QEMU
	tools/deps install check deb
	tests/install/run

check-all: ## check and check-rest: all tests on every kernel, and a table
	$(MAKE) check
	$(MAKE) check-rest

check-rest: ## the other kernels and machines, matrix, check-install, check-debug
	tools/deps install check deb debug
	tests/check-rest

bench: ## what it costs, beside all that could be done instead, in QEMU: tables, plots, goals
	tools/deps install bench
	tests/bench/run

matrix: ## build for every kernel that Debian has now: a table
	tools/deps install arm
	tests/matrix

lint: ## the tests that need no guest: style, warnings, sparse, cocci, docs, shell
	tools/deps install check
	tools/lint

doc: ## regenerate the reference from the header, tables of numbers, and the manual page
	tools/deps install doc
	tools/bench-doc
	tools/api-doc > Documentation/vmemexp-api.rst.new
	mv Documentation/vmemexp-api.rst.new Documentation/vmemexp-api.rst
	$(MAKE) -C tools man

clean: ## remove what was built
	rm -rf build out
	rm -f *.o *.ko *.mod *.mod.c .*.cmd modules.order Module.symvers

distclean-cache: ## remove the kernels and packages that the tests have fetched
	rm -rf $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/vmemexp

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

.PHONY: all install install-module uninstall deb run run-rtos check check-coherency check-debug check-install check-all check-rest bench matrix lint doc clean distclean-cache help
