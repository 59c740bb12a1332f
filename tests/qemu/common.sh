# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# shellcheck disable=SC2034  # what is set here is for the scripts that source it
#
# What tests/qemu/kernel and tests/qemu/run share: where things lie, how they
# talk, and the two tables to extend for another kernel or architecture.

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
			die "$command is missing; 'tools/deps install $group' brings it"
	done
}

EXIT_USAGE=2
EXIT_GUEST_OTHER=96
EXIT_FAIL=97
EXIT_LOST=98
EXIT_HARNESS=99

# Sets, for kernel VERSION:
#   suite    whose packages fill a root file system for it
#   pockets  where Debian keeps its kernel packages
#   display  a display whose driver imports dma-bufs, or the best there is
#   display_driver
version_row()
{
	case $1 in
	6.1)
		suite=bookworm
		pockets="bookworm bookworm-security"
		# Stays in video memory, so it can show but not import.
		display=bochs-display
		display_driver=bochs
		;;
	6.12)
		suite=bookworm
		pockets="bookworm bookworm-security"
		display=cirrus-vga
		display_driver=cirrus
		;;
	*)
		usage_error "no such kernel version: $1 (known: 6.1 6.12)"
		;;
	esac
}

# Sets, for Debian architecture ARCH:
#   flavour       last part of the name of its kernel packages
#   qemu machine  program and machine
#   cpu           model; not "max", with which two CPUs sometimes die early in
#                 an oops in int3 under multi-threaded TCG
#   console       name of the first serial port
arch_row()
{
	case $1 in
	amd64)
		flavour=amd64
		qemu='qemu-system-x86_64'
		machine=pc
		cpu=Haswell-noTSX,-pcid,-x2apic,-tsc-deadline,-invpcid,-fma
		console=ttyS0
		;;
	*)
		usage_error "no such architecture: $1 (known: amd64)"
		;;
	esac
}
