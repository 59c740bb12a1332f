################################################################################
#
# vmemexp
#
################################################################################

# The tree that this package is part of.
VMEMEXP_SITE = $(BR2_EXTERNAL_VMEMEXP_PATH)/../../..
VMEMEXP_SITE_METHOD = local
VMEMEXP_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS = --exclude=/build --exclude=/out
VMEMEXP_LICENSE = GPL-2.0, GPL-2.0 with Linux-syscall-note (header)
VMEMEXP_LICENSE_FILES = COPYING
VMEMEXP_INSTALL_STAGING = YES

# Selects DMA_SHARED_BUFFER, which cannot be switched on by itself.
define VMEMEXP_LINUX_CONFIG_FIXUPS
	$(call KCONFIG_ENABLE_OPT,CONFIG_SYNC_FILE)
endef

ifeq ($(BR2_PACKAGE_VMEMEXP_TOOLS),y)
VMEMEXP_DEPENDENCIES = host-pkgconf libdrm libpng

define VMEMEXP_BUILD_CMDS
	$(TARGET_MAKE_ENV) $(MAKE) $(TARGET_CONFIGURE_OPTS) -C $(@D)/tools
endef

define VMEMEXP_INSTALL_COMMAND
	$(TARGET_MAKE_ENV) $(MAKE) $(TARGET_CONFIGURE_OPTS) -C $(@D)/tools \
		DESTDIR=$(TARGET_DIR) install-command
endef
endif

define VMEMEXP_INSTALL_STAGING_CMDS
	$(INSTALL) -D -m 0644 $(@D)/include/uapi/vmemexp.h \
		$(STAGING_DIR)/usr/include/vmemexp.h
endef

define VMEMEXP_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0644 $(@D)/tools/packaging/udev/60-vmemexp.rules \
		$(TARGET_DIR)/lib/udev/rules.d/60-vmemexp.rules
	$(INSTALL) -D -m 0644 $(@D)/tools/packaging/modules-load.d/vmemexp.conf \
		$(TARGET_DIR)/usr/lib/modules-load.d/vmemexp.conf
	$(VMEMEXP_INSTALL_COMMAND)
endef

$(eval $(kernel-module))
$(eval $(generic-package))
