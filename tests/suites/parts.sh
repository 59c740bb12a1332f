# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What tests/suites/check and tests/suites/rest share: they run parts, one after the
# other, and let results.py add them up. Both work at the top of the tree.

# Begins a run whose logs go to directory $LOGS.
begin_parts()
{
	rm -rf "$LOGS"
	mkdir -p "$LOGS"
}

# Runs COMMAND to its end, shows and keeps what it prints, and keeps the results that
# the suite of that name has left. Sets part_status.
# run_part PART SUITE COMMAND...
run_part()
{
	local part=$1 results=out/$2/results.json start=$SECONDS
	shift 2

	rm -f "$results"
	echo "==> $*"
	part_status=0
	"$@" 2>&1 | tee "$LOGS/$part.log" || part_status=$?
	[[ ! -e $results ]] || cp "$results" "$LOGS/$part.json"
	# What was cut off may have been in the middle of a line.
	[[ -z $(tail -c 1 "$LOGS/$part.log") ]] || echo >>"$LOGS/$part.log"
	echo "# ended with status $part_status after $((SECONDS - start)) s" >>"$LOGS/$part.log"
}
