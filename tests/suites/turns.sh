# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Turns: suites that run side by side do only so much at once. The pipe $TURNS holds a byte
# for each turn that is free.

# Makes NUMBER turns, for all that this shell runs from now on. PIPE must not exist.
# begin_turns NUMBER PIPE
begin_turns()
{
	local turns

	export TURNS=$2
	mkfifo "$TURNS"
	# It has to be open somewhere, or what it holds is lost.
	exec {turns}<>"$TURNS"
	printf "%$1s" >&"$turns"
}

# Waits for a turn, if there are turns; it ends with this shell.
take_turn()
{
	[[ -n ${TURNS:-} ]] || return 0
	exec {turn}<>"$TURNS"
	read -r -N 1 -u "$turn" _
	trap 'printf " " >&"$turn"' EXIT
}
