# SPDX-License-Identifier: GPL-2.0
#
# The verbs; "make help" lists them. What is built, and how, is said in Kbuild,
# tests/Makefile and tools/Makefile.

KDIR ?= /lib/modules/$(shell uname -r)/build

all: ## build vmemexp.ko for the running kernel (or KDIR=) here
	$(MAKE) -C $(KDIR) M=$(CURDIR) modules

run: ## show a malloc'ed picture on a screen in QEMU, and compare every pixel
	tools/deps install run
	tools/run-demo

run-rtos: ## show what a second CPU draws beside Linux, in QEMU, and compare every pixel
	tools/deps install arm
	tests/rtos/run

check: ## all tests that a change must pass
	tools/deps install check
	tests/check

lint: ## the tests that need no guest: style, warnings, sparse, cocci, docs, shell
	tools/deps install check
	tools/lint

doc: ## regenerate the reference from the header, and the manual page
	tools/deps install doc
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

.PHONY: all run run-rtos check lint doc clean distclean-cache help
