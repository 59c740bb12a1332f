// SPDX-License-Identifier: GPL-2.0
#include <signal.h>

#include "signals.h"

__thread sigjmp_buf after_signal;
__thread volatile bool may_signal;

static void catch(int number)
{
	if (may_signal)
		siglongjmp(after_signal, number);
	/* The access is made again. */
	signal(number, SIG_DFL);
}

void catch_signals(void)
{
	struct sigaction action = { .sa_handler = catch };

	sigaction(SIGBUS, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
}

int signal_of(volatile unsigned char *byte, bool write)
{
	int signal = sigsetjmp(after_signal, 1);

	may_signal = !signal;
	if (signal)
		return signal;
	if (write)
		*byte = 0x5e;
	else
		(void)*byte;
	may_signal = false;
	return 0;
}
