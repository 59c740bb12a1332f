// SPDX-License-Identifier: GPL-2.0
/* vmemexp(1): look at the vmemexp driver, check it and show it at work. */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmemexp-common.h"

static const struct verb * const verbs[] = {
	&verb_info, &verb_selfcheck, &verb_show, &verb_export, &verb_query, &verb_list,
	&verb_revoke, NULL
};

/* The manual page is made from this text. */
static void print_help(void)
{
	const struct verb * const *verb;

	printf("Usage: vmemexp VERB [OPTION]...\n"
	       "\n"
	       "Look at the vmemexp driver, check it and show it at work. The driver exports\n"
	       "memory of a program as a dma-buf, which other drivers and programs can use\n"
	       "without a copy.\n");
	for (verb = verbs; *verb; verb++)
		printf("\nvmemexp %s %s:\n%s", (*verb)->name,
		       (*verb)->arguments, (*verb)->help);
	printf("\n"
	       "Options:\n"
	       "  -h, --help            print this, or behind a verb only what concerns it\n"
	       "  -V, --version         print the version\n"
	       "\n"
	       "Exit status:\n"
	       "  0 if all went well, 1 if something did not, 2 if the command line is wrong.\n");
}

int main(int argc, char **argv)
{
	const struct verb * const *verb;

	/* A parent may have left it ignored, and then nobody is told the status of a command. */
	signal(SIGCHLD, SIG_DFL);
	if (argc < 2)
		errx(EXIT_USAGE, "a verb is missing (try vmemexp --help)");

	if (!strcmp(argv[1], "-h") || !strcmp(argv[1], "--help")) {
		print_help();
		return EXIT_SUCCESS;
	}
	if (!strcmp(argv[1], "-V") || !strcmp(argv[1], "--version")) {
		puts("vmemexp " VERSION);
		return EXIT_SUCCESS;
	}

	for (verb = verbs; *verb; verb++)
		if (!strcmp(argv[1], (*verb)->name))
			return (*verb)->run(argc - 1, argv + 1);

	errx(EXIT_USAGE, "unknown verb or option %s (try vmemexp --help)", argv[1]);
}
