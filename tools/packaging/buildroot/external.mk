include $(BR2_EXTERNAL_VMEMEXP_PATH)/package/vmemexp/vmemexp.mk
