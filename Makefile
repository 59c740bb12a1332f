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
	install -D -m 0644 tools/packaging/udev/60-vmemexp.rules $(udev_rule)
	install -D -m 0644 tools/packaging/modules-load.d/vmemexp.conf $(load_list)
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
	tools/dev/deps install deb
	tools/packaging/build-deb

run: ## show a malloc'ed picture on a screen in QEMU, and compare every pixel
	tools/dev/deps install run
	tools/dev/run-demo

run-rtos: ## show what a second CPU draws beside Linux, in QEMU, and compare every pixel
	tools/dev/deps install arm
	tests/rtos/run

check: ## all tests that a change must pass
	tools/dev/deps install check
	tests/suites/check

check-coherency: ## devices and CPU see the same, whatever is between them: a table
	tools/dev/deps install check
	tests/suites/coherency

check-debug: ## all tests and the fuzzer under KASAN, lockdep, fault injection; coverage
	tools/dev/deps install debug
	tests/suites/debug

check-install: ## install and remove it in every way, in directories and in QEMU
	tools/dev/deps install check deb
	tests/suites/install

check-all: ## check and check-rest: all tests on every kernel, and a table
	$(MAKE) check
	$(MAKE) check-rest

check-rest: ## the other kernels and machines, matrix, check-install, check-debug
	tools/dev/deps install check deb debug
	tests/suites/rest

bench: ## what it costs, beside all that could be done instead, in QEMU: tables, plots, goals
	tools/dev/deps install bench
	tests/bench/run

matrix: ## build for every kernel that Debian has now: a table
	tools/dev/deps install arm
	tests/suites/builds

lint: ## the tests that need no guest: style, warnings, sparse, cocci, docs, shell
	tools/dev/deps install check
	tools/dev/lint

doc: ## regenerate the reference from the header, tables of numbers, and the manual page
	tools/dev/deps install doc
	tools/dev/bench-doc
	tools/dev/api-doc > Documentation/vmemexp-api.rst.new
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
