# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# shellcheck disable=SC2034  # what is set here is for the scripts that source it
#
# Finds the parts of a kernel in a directory, as the top of tests/vm/kernel describes it,
# and complains of those that are missing or do not fit. tests/vm/kernel and tests/vm/run
# source common.sh before.

# Where images are in a built tree, and in a root without the release at their end.
TREE_IMAGES=(arch/x86/boot/bzImage arch/arm/boot/zImage arch/arm64/boot/Image{,.gz})
ROOT_IMAGES=(boot/{vmlinuz,bzImage,zImage,Image,Image.gz})

# bytes_at OFFSET COUNT - of stdin, in hexadecimal
bytes_at()
{
	od -An -v -tx1 -j "$1" -N "$2" 2>/dev/null | tr -d ' \n'
}

# The architecture that IMAGE is for, by the magic numbers of the boot protocols.
image_arch()
{
	local image=$1 flags

	if [[ $(bytes_at 0x202 4 <"$image") == 48647253 ]]; then
		flags=$(bytes_at 0x236 1 <"$image")
		((0x$flags & 1)) && echo amd64 || echo i386
	elif [[ $(bytes_at 0x24 4 <"$image") == 18286f01 ]]; then
		echo armhf
	elif [[ $(bytes_at 0x38 4 <"$image") == 41524d64 ||
		$(gzip -dc <"$image" 2>/dev/null | bytes_at 0x38 4) == 41524d64 ]]; then
		echo arm64
	else
		echo "no machine that is known here"
	fi
}

# Prints the first of FILE... that is there.
first_file()
{
	local file
	for file; do
		[[ -f $file ]] || continue
		echo "$file"
		return
	done
}

look_at_tree()
{
	local dir=$1

	# One of another architecture may be left from an earlier build.
	image=$(first_file "$dir/arch/$kernel_arch/boot/"{bzImage,zImage,Image,Image.gz} \
		"${TREE_IMAGES[@]/#/$dir/}")
	[[ -n $image && -s $dir/include/config/kernel.release ]] ||
		usage_error "no kernel image in the tree $dir: none of ${TREE_IMAGES[*]}"
	release=$(<"$dir/include/config/kernel.release")
	[[ -s $dir/modules.order ]] ||
		usage_error "no modules in the tree $dir: 'make modules' builds them"
	modules_dir=''
	device_trees=("$dir/arch/$kernel_arch/boot")
	build_tree=$dir
	config=$dir/.config
}

# Sets modules_dir, and release from its name.
look_for_modules()
{
	local dir=$1 candidate
	local -A found=()

	for candidate in "$dir"/{,usr/}lib/modules/*/; do
		[[ ! -d ${candidate}kernel ]] || found[$(basename "$candidate")]=${candidate%/}
	done
	((${#found[@]})) ||
		usage_error "no modules in $dir: nothing in lib/modules, and it is no built tree"
	((${#found[@]} == 1)) ||
		usage_error "modules of several kernels in $dir: ${!found[*]}"
	release=${!found[*]}
	modules_dir=${found[$release]}
}

# A link from the modules leads into the root, or to where this machine has built them.
look_for_build_tree()
{
	local dir=$1 link candidate

	build_tree=''
	link=$(readlink "$modules_dir/build") || link=$modules_dir/build
	[[ $link == /* ]] || link=$modules_dir/$link
	for candidate in "$dir$link" "$link" "$dir/usr/src/linux-headers-$release"; do
		[[ -e $candidate/Makefile && -e $candidate/.config ]] || continue
		build_tree=$(realpath "$candidate")
		break
	done
}

look_at_root()
{
	local dir=$1 candidate
	local -a images=("${ROOT_IMAGES[@]/#/$1/}")

	look_for_modules "$dir"
	image=$(first_file "${images[@]/%/-$release}" "$modules_dir/vmlinuz")
	[[ -n $image ]] || usage_error "no kernel image in $dir: no boot/vmlinuz-$release"
	device_trees=("$modules_dir")
	for candidate in "$dir/boot" "$dir/usr/lib/linux-image-$release"; do
		[[ ! -d $candidate ]] || device_trees+=("$candidate")
	done
	look_for_build_tree "$dir"
	config=$(first_file "$dir/boot/config-$release" "$build_tree/.config")
}

# Only builds of modules need it; a kernel runs without.
need_build_tree()
{
	local tree_release

	[[ -n $build_tree ]] ||
		usage_error "no build tree for $release: neither lib/modules/$release/build nor usr/src/linux-headers-$release in $own_dir"
	tree_release=$(cat "$build_tree/include/config/kernel.release" 2>/dev/null || true)
	[[ $tree_release == "$release" ]] ||
		usage_error "the build tree $build_tree is of ${tree_release:-a kernel without a name}, not of $release"
	[[ -s $build_tree/Module.symvers ]] ||
		usage_error "no Module.symvers in the build tree $build_tree: 'make modules' makes it"
	"$build_tree/scripts/basic/fixdep" >/dev/null 2>&1 || (($? < 126)) ||
		usage_error "the build tree $build_tree has no scripts/basic/fixdep that runs here"
}

# Sets what set_kernel() sets, for the kernel in DIR, and
#   own_dir      DIR, by its full name
#   release      its name
#   own_name     that, and what tells it from others of the name in another directory
#   image        file
#   modules_dir  directory of its modules; empty: they are in the tree
#   device_trees directories where those of boards are
#   build_tree   what modules are built with, or empty
#   config       its configuration, or empty
set_kernel_dir()
{
	local found

	own_config='' says='' flavour_arguments='' lpae=yes
	set_arch "$2"
	[[ -d $1 ]] || usage_error "no such directory: $1"
	own_dir=$(realpath "$1")
	if [[ -e $own_dir/Makefile && -e $own_dir/.config ]]; then
		look_at_tree "$own_dir"
	else
		look_at_root "$own_dir"
	fi
	found=$(image_arch "$image")
	[[ $found == "$2" ]] || usage_error "$image is for $found, not for $2"
	own_name=$release-$(sha256sum <<<"$own_dir" | cut -c1-8)
	[[ $2 != armhf || -z $config ]] || grep -qx CONFIG_ARM_LPAE=y "$config" || lpae=no

	# As for the last one of Debian's that is not newer.
	[[ $release =~ ^([0-9]+)\.([0-9]+) ]] || usage_error "$release is no name of a kernel"
	version=${BASH_REMATCH[0]}
	case $((BASH_REMATCH[1] * 1000 + BASH_REMATCH[2])) in
	[1-5]???) set_version 5.10 "$2" ;;
	600? | 601[01]) set_version 6.1 "$2" ;;
	6???) set_version 6.12 "$2" ;;
	*) set_version "$version" "$2" ;;
	esac
	# It was built by tools of this machine.
	builder=''
}
