################################################################################
#
# vmemexp
#
################################################################################

# The tree that this package is part of.
VMEMEXP_SITE = $(BR2_EXTERNAL_VMEMEXP_PATH)/../../..
VMEMEXP_SITE_METHOD = local
VMEMEXP_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS = --exclude=/build --exclude=/out
VMEMEXP_LICENSE = GPL-2.0, GPL-2.0 with Linux-syscall-note (header), \
	LGPL-2.1+ or MIT (library)
VMEMEXP_LICENSE_FILES = COPYING tools/lib/COPYING.LGPL-2.1 tools/lib/COPYING.MIT
VMEMEXP_INSTALL_STAGING = YES

# Selects DMA_SHARED_BUFFER, which cannot be switched on by itself.
define VMEMEXP_LINUX_CONFIG_FIXUPS
	$(call KCONFIG_ENABLE_OPT,CONFIG_SYNC_FILE)
endef

ifeq ($(BR2_PACKAGE_VMEMEXP_TOOLS),y)
VMEMEXP_DEPENDENCIES = host-pkgconf libdrm libpng

define VMEMEXP_INSTALL_COMMAND
	$(VMEMEXP_MAKE_TOOLS) DESTDIR=$(TARGET_DIR) install-command
endef
endif

VMEMEXP_MAKE_TOOLS = $(TARGET_MAKE_ENV) $(MAKE) $(TARGET_CONFIGURE_OPTS) -C $(@D)/tools

ifeq ($(BR2_PACKAGE_VMEMEXP_LIB),y)
define VMEMEXP_BUILD_CMDS
	$(VMEMEXP_MAKE_TOOLS) lib
endef

# Buildroot takes what is for programmers out of the target again.
define VMEMEXP_INSTALL_LIB
	$(VMEMEXP_MAKE_TOOLS) DESTDIR=$(TARGET_DIR) install-lib
endef

define VMEMEXP_INSTALL_STAGING_CMDS
	$(VMEMEXP_MAKE_TOOLS) DESTDIR=$(STAGING_DIR) install-lib
endef
else
define VMEMEXP_INSTALL_STAGING_CMDS
	$(INSTALL) -D -m 0644 $(@D)/include/uapi/vmemexp.h \
		$(STAGING_DIR)/usr/include/vmemexp.h
endef
endif

define VMEMEXP_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0644 $(@D)/tools/packaging/udev/60-vmemexp.rules \
		$(TARGET_DIR)/lib/udev/rules.d/60-vmemexp.rules
	$(INSTALL) -D -m 0644 $(@D)/tools/packaging/modules-load.d/vmemexp.conf \
		$(TARGET_DIR)/usr/lib/modules-load.d/vmemexp.conf
	$(VMEMEXP_INSTALL_COMMAND)
	$(VMEMEXP_INSTALL_LIB)
endef

$(eval $(kernel-module))
$(eval $(generic-package))
