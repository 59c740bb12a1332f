# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# shellcheck disable=SC2034  # what is set here is for the scripts that source it
#
# What the suites of guests share: test programs, guests to run them in, and logs. A
# suite sources tests/vm/common.sh before, works in $TOP, and keeps its logs in $logs.

# shellcheck source-path=SCRIPTDIR source=turns.sh
. "$TOP/tests/suites/turns.sh"

# Builds the test programs for each ARCH.
build_programs()
{
	local arch cross

	mkdir -p build
	for arch; do
		set_arch "$arch"
		# Another suite may do so at the same time.
		flock "build/tests-$arch.lock" \
			make -s -j "$(nproc)" -C tests CROSS_COMPILE="$cross" OUTPUT="$PWD/build/tests-$arch" \
			install INSTALL_PATH="$PWD/build/kselftest-$arch"
	done
}

# Builds the command and compare-screen, static, for guests of amd64.
build_tools()
{
	mkdir -p build
	flock build/tools-static.lock make -s -C tools STATIC=1 OUTPUT="$PWD/build/tools-static"
}

# Prints where the log of the guest ARCH/NAME is.
log_of()
{
	# shellcheck disable=SC2154  # the suite sets it
	echo "$logs/${1/\//-}.log"
}

# Runs $programs in a guest, behind the words in $before, with tests/vm/run's OPTIONs, and
# keeps what it prints in the log of ARCH/NAME, behind the lines in $notes.
# run_programs ARCH/NAME OPTION...
run_programs()
{
	local log status=0 start=$SECONDS name=$1
	shift

	log=$(log_of "$name")
	# shellcheck disable=SC2154  # the suite sets it
	echo "# programs: ${programs[*]}" >"$log"
	[[ -z ${notes:-} ]] || echo "$notes" >>"$log"
	tests/vm/run "$@" -- ${before[@]+"${before[@]}"} /kselftest/run_tests "${programs[@]}" \
		>>"$log" 2>&1 || status=$?
	echo "# guest ended with status $status" >>"$log"
	say "$name: status $status after $((SECONDS - start)) s"
}

# Runs FUNCTION when there is a turn. If it fails, the suite goes on to the next guest: what
# a guest did is in its log, and one that has none was not run, which fails as well.
# run_in_turn FUNCTION ARGUMENT...
run_in_turn()
{
	# In a condition, "set -e" would be off in FUNCTION.
	set +e
	(
		set -e
		take_turn
		"$@"
	)
	set -e
}

# Sets guest, tests/vm/run's options for ARCH. All programs together want carve-outs
# of every sort that the machine can have: with and without struct page, in and
# outside of System RAM.
set_guest()
{
	local ranges

	guest=(--arch "$1" --scratch 256 --with carveout --with cachewatch --with parts)
	case $1 in
	amd64)
		guest+=(--with encrypted)
		# No RAM between 256 MiB and 4 GiB: a device with 28 or 32
		# address bits bounces whatever the tests allocate, into a pool
		# that it can reach. The first carve-out lies in that hole, and 2 MiB
		# of it below 512 MiB, where page frames become long in a debug
		# kernel (tests/vm/kernel). The second shares a block of 2 MiB with RAM,
		# so it has struct pages. The third one is large: it takes a while to
		# unmap it. Two blocks at the end of RAM, with some RAM in between, are
		# persistent memory.
		# shellcheck disable=SC2016  # a memory map, not a variable
		guest+=(--memory 5632 --append 'nokaslr swiotlb=32768 secretmem.enable=1'
			--append 'memmap=0xb0000000$0x10000000 memmap=1M$0xf900000'
			--append 'memmap=128M!0x180000000 memmap=128M!0x190000000'
			--append 'vmemexp_carveout.ranges=0x1fe00000:16M,0xf900000:1M,0x40000000:512M')
		;;
	armhf | arm64)
		# The overlay reserves the first three carve-outs, the third as
		# System RAM, and what is behind it: the last is both. The fourth
		# begins where the kernel's RAM ends by mem=, so there is no struct
		# page for it.
		guest+=(--noncoherent --overlay tests/modules/carveout/reserved-memory.dts)
		ranges=0x60000000:16M,0x62000000:1M,0x64000000:4M
		# RAM from 1 to 5.5 GiB, some of it out of reach for a device with
		# 32 address bits; on arm, nothing that a program gets is within.
		guest+=(--memory 5120
			--append "mem=4608M vmemexp_carveout.ranges=$ranges,0x160000000:16M,0x64000000:5M")
		[[ $1 == arm64 ]] || guest+=(--overlay tests/vm/high-memory.dts)
		;;
	esac
}

# Prints the tests that may be skipped on ARCH/KERNEL, as lines of its log for results.py.
may_skip()
{
	local where pattern config

	config=$(tests/vm/kernel headers "${1#*/}" "${1%/*}")/.config || exit
	sed '/^#/d; /^$/d' tests/suites/may-skip | while read -r where pattern; do
		if [[ $where == CONFIG_* ]]; then
			! grep -q "^$where=[ym]" "$config" || continue
		else
			# shellcheck disable=SC2053  # a pattern
			[[ $1 == $where ]] || continue
		fi
		echo "# may skip: $pattern"
	done
}
