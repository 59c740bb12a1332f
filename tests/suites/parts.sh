# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What tests/suites/check and tests/suites/rest share: they run parts, and let results.py
# add them up. Both work at the top of the tree.

# shellcheck source-path=SCRIPTDIR source=turns.sh
. tests/suites/turns.sh

# Begins a run whose logs go to directory $LOGS.
begin_parts()
{
	rm -rf "$LOGS"
	mkdir -p "$LOGS"
}

# Runs COMMAND to its end, shows what it prints behind the name of the part, and keeps
# that and the results that the suite of that name has left. Sets part_status.
# run_part PART SUITE COMMAND...
run_part()
{
	local part=$1 results=out/$2/results.json start=$SECONDS
	shift 2

	rm -f "$results"
	echo "$part: begins: $*"
	part_status=0
	"$@" 2>&1 | tee "$LOGS/$part.log" | sed -u "s/^/$part: /" || part_status=$?
	[[ ! -e $results ]] || cp "$results" "$LOGS/$part.json"
	# A part that was killed may have ended in the middle of a line.
	[[ -z $(tail -c 1 "$LOGS/$part.log") ]] || echo >>"$LOGS/$part.log"
	echo "# ended with status $part_status after $((SECONDS - start)) s" >>"$LOGS/$part.log"
}
