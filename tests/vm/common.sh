# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# shellcheck disable=SC2034  # what is set here is for the scripts that source it
#
# What tests/vm/kernel and tests/vm/run share: where things lie, how they
# talk, and the tables to extend for another kernel, architecture or machine.

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# depmod is where an ordinary user does not look.
PATH=$PATH:/usr/sbin:/sbin
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/vmemexp

# Progress goes to stderr: stdout belongs to the answer, or to the guest.
say()
{
	[[ -n ${VMEMEXP_QUIET:-} ]] || printf '%s\n' "$*" >&2
}

die()
{
	printf '%s: %s\n' "$(basename "$0")" "$*" >&2
	exit "$EXIT_HARNESS"
}

usage_error()
{
	printf '%s: %s (see --help)\n' "$(basename "$0")" "$*" >&2
	exit "$EXIT_USAGE"
}

# The --help text is the comment at the top of the script itself.
print_help()
{
	sed -n '4,/^$/s/^# \{0,1\}//p' "$0"
}

need_commands()
{
	local group=$1 command
	shift
	for command; do
		command -v "$command" >/dev/null ||
			die "$command is missing; 'tools/dev/deps install $group' brings it"
	done
}

EXIT_USAGE=2
EXIT_GUEST_OTHER=96
EXIT_FAIL=97
EXIT_LOST=98
EXIT_HARNESS=99

# Where to look for versions that set_version() does not name. Oldest first.
suites_of()
{
	# The indices of armhf's backports and security updates are often broken.
	case $1 in
	armhf) echo bullseye bookworm trixie forky ;;
	*) echo bullseye bookworm bookworm-security trixie-backports ;;
	esac
}

# Sets, for kernel VERSION on Debian architecture ARCH:
#   suite    whose packages fill a root file system for it
#   pockets  where Debian keeps its kernel packages
#   builder  suite in whose minimal system its modules are built; empty: here
#   gcc      version of the compiler for them, if it is here
#   pci_display  a display whose driver imports dma-bufs, or the best there is
#   pci_display_driver
set_version()
{
	local version=$1 arch=$2

	builder='' gcc=12 pci_display=cirrus-vga
	case $version in
	5.10)
		suite=bullseye
		# Security updates have ended, and go from the archive.
		pockets=bullseye
		pci_display_driver=cirrus
		;;
	6.1)
		suite=bookworm
		pockets="bookworm bookworm-security"
		# Stays in video memory, so it can show but not import.
		pci_display=bochs-display
		pci_display_driver=bochs
		;;
	6.12)
		suite=bookworm
		pockets="bookworm bookworm-security"
		pci_display_driver=cirrus
		;;
	[7-9].* | [1-9][0-9].*)
		suite=trixie
		pockets="trixie trixie-backports"
		pci_display_driver=cirrus-qemu
		# The programs among its headers want a newer C library than
		# Debian 12 has.
		builder=trixie
		;;
	*)
		usage_error "no such kernel version: $version (tests/vm/kernel versions $arch lists them)"
		;;
	esac
	case $arch/$version in
	armhf/6.1) pockets=bookworm ;;
	# Debian 12 has it in its security updates alone. Debian 13's own
	# kernel is the same version.
	armhf/6.12) pockets=trixie ;;
	armhf/[7-9].* | armhf/[1-9][0-9].*) pockets=forky builder=forky ;;
	esac
}

# Sets, for Debian architecture ARCH:
#   flavour       last part of the name of its kernel packages
#   packages_group
#                 group of tools/dev/deps that brings what is needed for it
#   cross         what the names of its compiler begin with
#   kernel_arch   its name in the kernel's source
#   machines      those that set_machine() knows
#   machine       the one that is taken if nobody names one
#   iommu_machine the same if there is to be an IOMMU
set_arch()
{
	case $1 in
	amd64)
		flavour=amd64
		packages_group=run
		cross=
		kernel_arch=x86
		machines='pc q35'
		machine=pc iommu_machine=q35
		;;
	armhf)
		flavour=armmp-lpae
		packages_group=arm
		cross=arm-linux-gnueabihf-
		kernel_arch=arm
		machines='virt vexpress-a15'
		machine=virt iommu_machine=virt
		;;
	arm64)
		flavour=arm64
		packages_group=arm
		cross=aarch64-linux-gnu-
		kernel_arch=arm64
		machines=virt
		machine=virt iommu_machine=virt
		;;
	*)
		usage_error "no such architecture: $1 (known: amd64 armhf arm64)"
		;;
	esac
}

# Both, for a kernel by its NAME: VERSION or VERSION-FLAVOUR. Sets version, and the
# flavour, and
#   own_config    configuration of a kernel that is built here; empty: Debian's kernel
#   says          the version that the headers of it are made to say; empty: their own
#   flavour_arguments
#                 what a kernel of this flavour is booted with
#   lpae          of armhf: "no" if it finds nothing above 4 GiB
set_kernel()
{
	version=${1%%-*}
	set_arch "$2"
	set_version "$version" "$2"
	own_config='' says='' flavour_arguments='' lpae=yes
	case $1 in
	*-says-*) says=${1#*-says-} ;;
	*-*) flavour=${1#*-} ;;
	esac
	[[ $flavour != armmp ]] || lpae=no
	case $flavour in
	debug | bench)
		[[ $2 == amd64 ]] || usage_error "there is no $flavour kernel for $2"
		own_config=$TOP/tests/vm/configs/$flavour
		# It is built here, so its modules can be as well.
		builder=''
		packages_group=$flavour
		machine=q35
		;;
	esac
	case $flavour in
	debug)
		# ACPI takes 30 s to tell the interrupt of a device of "pc", for each of
		# them, so it is q35. All else is slow as well.
		flavour_arguments='rcupdate.rcu_cpu_stall_timeout=240 printk.time=1 log_buf_len=1M'
		;;
	bench)
		# What is measured includes what Debian's kernels do against attacks.
		flavour_arguments='mitigations=auto'
		;;
	esac
}

# Sets, for MACHINE of ARCH, after set_kernel():
#   qemu qemu_machine cpu
#                 QEMU's program, machine and model of the CPU; not "max", with which
#                 two CPUs sometimes die early in an oops in int3 under multi-threaded
#                 TCG
#   icount_cpu    what the model ends with if instructions are counted
#   memory_limit  MiB of memory that it can have; empty: nobody has met the limit
#   virtio        last part of the names of its virtio devices
#   disks         how many of them it has room for
#   bus_module    module through which a kernel finds them
#   bus_options   what a kernel needs to be configured with, to find them and to speak
#   console       name of the first serial port
#   device_tree   qemu: QEMU makes it; a name: that of the file among those that come with
#                 the kernel; empty: there is none
#   tree_without  what is taken out of it: the property behind the path of its node
#   machine_arguments
#                 what a kernel is booted with there
#   iommu         QEMU's options for an IOMMU before the PCI devices, or nothing if
#                 there is none that its kernels have a driver for
#   iommu_arguments
#                 the kernel's arguments for it: translate, and forget a mapping at
#                 once when it ends, not some time later
#   display       QEMU's options for a display, if the board does not bring one
#   display_driver
#                 modules to load for it, in this order
#   display_source
#                 its driver if Debian's kernels do not have it, and "kernel driver" does
set_machine()
{
	icount_cpu='' memory_limit='' machine_arguments='' iommu=() iommu_arguments=''
	virtio=pci bus_module=virtio_pci disks=2 tree_without=()
	display=(-device "$pci_display") display_driver=$pci_display_driver display_source=''
	local clcd=/bus@8000000/motherboard-bus@8000000/iofpga-bus@300000000/clcd@1f0000
	case $2/$1 in
	amd64/pc)
		qemu=qemu-system-x86_64
		qemu_machine=pc
		cpu=Haswell-noTSX,-pcid,-x2apic,-tsc-deadline,-invpcid,-fma,+pku
		# QEMU counts each turn of a string instruction, which should not move
		# less than the CPU can. Few CPUs have protection keys.
		icount_cpu=,-erms,-pku
		bus_options='VIRTIO_PCI SERIAL_8250_CONSOLE'
		console=ttyS0
		device_tree=
		# Where QEMU gets too little of a CPU, its timer may be silent for ten
		# ticks, after which the kernel panics at boot. KVM's guests do not
		# look either.
		machine_arguments=' no_timer_check'
		;;
	amd64/q35)
		set_machine pc amd64
		qemu_machine=q35
		iommu=(-device intel-iommu)
		iommu_arguments='intel_iommu=on iommu.strict=1'
		;;
	armhf/virt)
		# The 32-bit CPU in the 64-bit program: qemu-system-arm does not
		# walk page tables above 4 GiB.
		qemu=qemu-system-aarch64
		qemu_machine=virt,gic-version=2
		[[ $lpae == yes ]] || qemu_machine+=,highmem=off
		cpu=cortex-a15
		bus_options='ARCH_VIRT PCI_HOST_GENERIC VIRTIO_PCI SERIAL_AMBA_PL011_CONSOLE'
		console=ttyAMA0
		device_tree=qemu
		# It maps the configuration space of all buses that PCI can have.
		[[ $version != 5.10 ]] || machine_arguments=' vmalloc=512M'
		;;
	armhf/vexpress-a15)
		qemu=qemu-system-aarch64
		qemu_machine=vexpress-a15
		cpu=cortex-a15
		memory_limit=30720
		virtio=device bus_module=virtio_mmio
		# It has four places: the ports take one, the host's directories two.
		disks=1
		bus_options='ARCH_VEXPRESS VIRTIO_MMIO SERIAL_AMBA_PL011_CONSOLE'
		console=ttyAMA0
		device_tree=vexpress-v2p-ca15-tc1.dtb
		# The display controller of the board reaches its video memory alone, so the
		# driver would import nothing. QEMU's reads all memory.
		tree_without=("$clcd memory-region" "$clcd max-memory-bandwidth")
		# Before the driver, what leads to the monitor.
		display=() display_driver='i2c_versatile sii902x drm_dma_helper'
		display_source=pl111_drm
		;;
	arm64/virt)
		qemu=qemu-system-aarch64
		qemu_machine=virt,gic-version=2
		cpu=cortex-a57
		bus_options='PCI_HOST_GENERIC VIRTIO_PCI SERIAL_AMBA_PL011_CONSOLE'
		console=ttyAMA0
		device_tree=qemu
		iommu=(-machine iommu=smmuv3)
		iommu_arguments=iommu.strict=1
		;;
	*)
		usage_error "no such machine for $2: $1 (known: $machines)"
		;;
	esac
}
