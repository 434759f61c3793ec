/* pronk_machine.c - the program behind `pronk check` and `pronk setup`: a program of its own, so that `pronk
 * run` does not load the libraries that these two need. */
#include <argp.h>
#include <stdio.h>
#include <string.h>

#include "machine.h"

const char *argp_program_version = "pronk " PRONK_VERSION;

enum { EXIT_OWN = 125 }; /* as for the launcher's own mistakes */

int main(int argc, char **argv)
{
	argp_err_exit_status = EXIT_OWN;
	if (argc < 2 || (strcmp(argv[1], "check") && strcmp(argv[1], "setup"))) {
		fputs("pronk-machine is started by `pronk check` and `pronk setup`\n", stderr);
		return 2;
	}
	if (!strcmp(argv[1], "check")) {
		argv[1] = (char[]){"pronk check"}; /* for messages */
		return check_main(argc - 1, argv + 1);
	}
	argv[1] = (char[]){"pronk setup"};
	return setup_main(argc - 1, argv + 1);
}
