/*
 * Builds the filter that runc would have libseccomp build, from a description on standard
 * input, one item a line:
 *
 *   default ACTION
 *   native NAME           the machine's own architecture (libseccomp's name: x86_64, …)
 *   arch NAME             a further one
 *   rule ACTION NAME COUNT [ARG OP A B]...
 *
 * Standard output: for each architecture `last NAME NUMBER`, the largest number that the
 * rules name (without ARM's private calls), and `number NAME SYSCALL N` for each name; `unknown NAME` for names that the library doesn't have; then, after the line
 * `program`, the filter. Exits with 2 where the library refuses a rule (standard error
 * says why).
 */
#include <errno.h>
#include <seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAX 8192

static char names[MAX][64];
static int count;
static uint32_t arches[8];
static char arch_names[8][32];
static int arch_count;

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

int main(void)
{
	scmp_filter_ctx ctx = NULL;
	uint32_t default_action = 0;
	char word[64];
	double spent = 0;

	while (scanf("%63s", word) == 1) {
		if (!strcmp(word, "default")) {
			scanf("%u", &default_action);
			ctx = seccomp_init(default_action);
		} else if (!strcmp(word, "native") || !strcmp(word, "arch")) {
			int is_native = word[0] == 'n';
			scanf("%31s", arch_names[arch_count]);
			uint32_t arch = seccomp_arch_resolve_name(arch_names[arch_count]);
			if (!arch)
				return 3;
			if (is_native && arch != seccomp_arch_native()) {
				seccomp_arch_remove(ctx, SCMP_ARCH_NATIVE);
			}
			int rc = seccomp_arch_add(ctx, arch);
			if (rc && rc != -EEXIST) {
				fprintf(stderr, "arch %s: %s\n", arch_names[arch_count], strerror(-rc));
				return 2;
			}
			arches[arch_count++] = arch;
		} else if (!strcmp(word, "rule")) {
			struct scmp_arg_cmp args[6];
			uint32_t action;
			unsigned n;
			scanf("%u %63s %u", &action, names[count], &n);
			memset(args, 0, sizeof(args));
			for (unsigned i = 0; i < n; i++) {
				unsigned arg, op;
				unsigned long long a, b;
				scanf("%u %u %llu %llu", &arg, &op, &a, &b);
				args[i] = (struct scmp_arg_cmp){ arg, op, a, b };
			}
			int nr = seccomp_syscall_resolve_name(names[count]);
			if (nr == __NR_SCMP_ERROR) {
				printf("unknown %s\n", names[count]);
				continue;
			}
			count++;
			if (action == default_action)
				continue;
			double start = now();
			int rc = seccomp_rule_add_array(ctx, action, nr, n, args);
			spent += now() - start;
			if (rc) {
				fprintf(stderr, "rule on %s: %s\n", names[count - 1], strerror(-rc));
				return 2;
			}
		}
	}
	for (int i = 0; i < arch_count; i++) {
		int last = 0;
		for (int j = 0; j < count; j++) {
			int nr = seccomp_syscall_resolve_name_arch(arches[i], names[j]);
			int is_private = arches[i] == SCMP_ARCH_ARM && nr >= 0xf0000;
			if (nr >= 0)
				printf("number %s %s %d\n", arch_names[i], names[j], nr);
			if (nr > last && !is_private)
				last = nr;
		}
		printf("last %s %d\n", arch_names[i], last);
	}
	if (getenv("ORACLE_TREE"))
		seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	/* The first call compiles; to nowhere, so that only that is measured. */
	FILE *null = fopen("/dev/null", "w");
	double start = now();
	seccomp_export_bpf(ctx, fileno(null));
	spent += now() - start;
	printf("spent %.1f\n", spent);
	printf("program\n");
	fflush(stdout);
	return seccomp_export_bpf(ctx, 1) ? 4 : 0;
}
