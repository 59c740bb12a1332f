// SPDX-License-Identifier: GPL-2.0
/*
 * Programs: a few calls, made at random, changed, written and read as text.
 *
 * The text is one line, as in
 *
 *	map 0 0 2 3;export 0 0 ~0 0 2 1;close 1
 *
 * Numbers are hexadecimal, ~N is N before the end. Arguments that are left out are 0.
 */
#include "fuzz.h"

/* --- random numbers: Knuth's linear congruential generator, its upper half --- */

static uint64_t random_state;

void seed_random(uint64_t seed)
{
	random_state = seed;
}

static uint32_t random_half(void)
{
	random_state = random_state * 6364136223846793005 + 1442695040888963407;
	return random_state >> 32;
}

uint64_t random_number(void)
{
	uint64_t high = random_half();

	return high << 32 | random_half();
}

static bool one_in(unsigned int n)
{
	return random_number() % n == 0;
}

/* --- arguments --- */

/* A power of two, and what is one or one page beside it. */
static uint64_t random_boundary(void)
{
	static const int64_t beside[] = { 0, -1, 1, -(int64_t)PAGE, PAGE };

	return (1ULL << random_number() % 64) +
	       beside[random_number() % ARRAY_SIZE(beside)];
}

static uint64_t random_odd_number(void)
{
	switch (random_number() % 4) {
	case 0:
		return random_number() % 10;
	case 1:
		return -(random_number() % (2 * PAGE));
	case 2:
		return random_number();
	default:
		return random_boundary();
	}
}

static struct arg plainly(uint64_t n)
{
	return (struct arg){ .n = n };
}

static struct arg random_bytes(void)
{
	uint64_t pages = random_number() % 6 * PAGE;

	switch (random_number() % 8) {
	case 0:
	case 1:
		return plainly(pages);
	case 2:
		return plainly(pages + random_number() % 3 - 1);
	case 3:
		return (struct arg){ pages + random_number() % 3 - 1, true };
	case 4:
		return (struct arg){ random_number() % (4 * PAGE), one_in(2) };
	case 5:
		return (struct arg){ random_number() % 3 * PAGE, true };
	default:
		return plainly(random_odd_number());
	}
}

static struct arg random_rows(void)
{
	switch (random_number() % 8) {
	case 0:
		return plainly(random_number() % 10);
	case 1:
		return plainly(random_odd_number());
	case 2:
	case 3:
		return (struct arg){ random_number() % 3 - 1, true };
	default:
		return plainly(0);
	}
}

/* Too many, too few, and what the driver, or a number of 32 bits, may have at most. */
static struct arg random_count(void)
{
	static const uint64_t most[] = {
		0, 1, 2, VMEMEXP_MAX_RANGES - 1, VMEMEXP_MAX_RANGES, VMEMEXP_MAX_RANGES + 1,
		UINT32_MAX,
	};

	switch (random_number() % 8) {
	case 0:
		return plainly(random_odd_number());
	case 1:
		return (struct arg){ random_number() % 3 - 1, true };
	case 2:
		return plainly(most[random_number() % ARRAY_SIZE(most)]);
	default:
		return (struct arg){ 0, true };
	}
}

static unsigned int nr_args_of(const struct call_type *type)
{
	unsigned int nr = 0;

	while (nr < MAX_ARGS && type->args[nr].kind != ARG_NONE)
		nr++;
	return nr;
}

static struct arg random_arg(const struct arg_type *type)
{
	if (one_in(100))
		return plainly(random_odd_number());
	switch (type->kind) {
	case ARG_PICK:
		return plainly(random_number() % type->limit);
	case ARG_SLOT:
		return plainly(one_in(2) ? random_number() % type->limit : 0);
	case ARG_RARE:
		return plainly(one_in(4) ? random_number() % type->limit : 0);
	case ARG_BITS:
		return plainly(random_number() & type->limit);
	case ARG_OFFSET:
		return one_in(2) ? random_bytes() : plainly(0);
	case ARG_LENGTH:
		return one_in(2) ? random_bytes() : (struct arg){ 0, true };
	case ARG_ROWS:
		return random_rows();
	case ARG_COUNT:
		return random_count();
	default:
		return plainly(one_in(2) ? 0 : random_odd_number());
	}
}

static void mutate_arg(struct arg *arg, const struct arg_type *type)
{
	switch (random_number() % 6) {
	case 0:
		arg->n += one_in(2) ? 1 : -1;
		break;
	case 1:
		arg->n += one_in(2) ? PAGE : -PAGE;
		break;
	case 2:
		arg->n ^= 1ULL << random_number() % (one_in(2) ? 64 : 8);
		break;
	default:
		*arg = random_arg(type);
		if (type->kind == ARG_RARE)
			arg->n = random_number() % type->limit;
	}
}

/* --- programs --- */

static unsigned int call_named(const char *name)
{
	unsigned int nr = 0;

	while (nr < nr_call_types && strcmp(call_types[nr].name, name))
		nr++;
	return nr;
}

static unsigned int random_call_nr(void)
{
	unsigned int nr, sum = 0, number;

	for (nr = 0; nr < nr_call_types; nr++)
		sum += call_types[nr].weight;
	number = random_number() % sum;
	for (nr = 0; number >= call_types[nr].weight; nr++)
		number -= call_types[nr].weight;
	return nr;
}

static struct call random_call(void)
{
	struct call call = { .nr = random_call_nr() };
	const struct call_type *type = &call_types[call.nr];

	for (unsigned int i = 0; i < nr_args_of(type); i++)
		call.args[i] = random_arg(&type->args[i]);
	return call;
}

static void insert_call(struct program *p, unsigned int at, struct call call)
{
	if (p->nr_calls == MAX_CALLS)
		return;
	memmove(&p->calls[at + 1], &p->calls[at], (p->nr_calls - at) * sizeof(call));
	p->calls[at] = call;
	p->nr_calls++;
}

static void remove_call(struct program *p, unsigned int at)
{
	p->nr_calls--;
	memmove(&p->calls[at], &p->calls[at + 1],
		(p->nr_calls - at) * sizeof(p->calls[0]));
}

/* Memory of some kind and an export of all of it, which most calls need. */
static void begin_with_export(struct program *p)
{
	p->calls[p->nr_calls++] = (struct call){
		.nr = call_named("map"),
		.args[1].n = random_number() % NR_KINDS,
		.args[2].n = random_number() % NR_SIZES,
		.args[3].n = PROT_READ | PROT_WRITE,
		.args[4].n = one_in(2) ? random_number() & 0x3ff : 0,
	};
	p->calls[p->nr_calls++] = (struct call){
		.nr = call_named("export"),
		.args[2].from_end = true,
		.args[4].n = one_in(4) ? O_RDONLY : O_RDWR,
	};
}

/* The same of a list, with memory in two regions that may be of different kinds. */
static void begin_with_list(struct program *p)
{
	unsigned int ranges = 2 + random_number() % 3;

	for (unsigned int i = 0; i < 2; i++)
		p->calls[p->nr_calls++] = (struct call){
			.nr = call_named("map"),
			.args[0].n = i,
			.args[1].n = i && one_in(2) ? p->calls[0].args[1].n :
						      random_number() % NR_KINDS,
			.args[2].n = random_number() % NR_SIZES,
			.args[3].n = PROT_READ | PROT_WRITE,
			.args[4].n = one_in(2) ? random_number() & 0x3ff : 0,
		};
	for (unsigned int i = 0; i < ranges; i++)
		p->calls[p->nr_calls++] = (struct call){
			.nr = call_named("range"),
			.args[0].n = random_number() % 2,
			.args[1].n = one_in(2) ? random_number() % 4 * PAGE : 0,
			.args[2] = one_in(2) ? plainly(PAGE) : (struct arg){ 0, true },
		};
	p->calls[p->nr_calls++] = (struct call){
		.nr = call_named("export_list"),
		.args[0].from_end = true,
		.args[3].n = one_in(4) ? O_RDONLY : O_RDWR,
	};
}

/* By this process, which may export it once more, or by a device. */
static void go_on_with_mapping(struct program *p)
{
	if (one_in(2)) {
		p->calls[p->nr_calls++] = (struct call){
			.nr = call_named("mmap"),
			.args[1].n = random_number() % 2,
			.args[3].from_end = true,
			.args[4].n = PROT_READ | PROT_WRITE,
		};
		return;
	}
	p->calls[p->nr_calls++] = (struct call){
		.nr = call_named("attach"),
		.args[2].n = random_number() % IMPORTER_NR_DEVS,
	};
	p->calls[p->nr_calls++] = (struct call){
		.nr = call_named("import"),
		.args[1].n = one_in(3) ? IMPORT_VMAP : IMPORT_MAP,
		.args[2].n = random_number() % 3,
	};
}

unsigned int program_cost(const struct program *p)
{
	unsigned int cost = 0;

	for (unsigned int i = 0; i < p->nr_calls; i++)
		cost += call_types[p->calls[i].nr].weight == 1 ? 10 : 1;
	return cost;
}

static void trim_program(struct program *p)
{
	char text[MAX_TEXT];

	if (!p->nr_calls)
		p->calls[p->nr_calls++] = random_call();
	for (print_program(p, text); !*text; print_program(p, text))
		p->nr_calls--;
}

void make_program(struct program *p)
{
	unsigned int nr_calls = 1 + random_number() % MAX_CALLS;

	p->nr_calls = 0;
	if (nr_calls > 7 && one_in(3))
		begin_with_list(p);
	else if (nr_calls > 2 && !one_in(4))
		begin_with_export(p);
	if (nr_calls > p->nr_calls + 2 && p->nr_calls && one_in(2))
		go_on_with_mapping(p);
	while (p->nr_calls < nr_calls)
		p->calls[p->nr_calls++] = random_call();
	trim_program(p);
}

static void join_programs(struct program *p, const struct program *other)
{
	unsigned int from = random_number() % other->nr_calls;

	p->nr_calls = random_number() % (p->nr_calls + 1);
	while (from < other->nr_calls && p->nr_calls < MAX_CALLS)
		p->calls[p->nr_calls++] = other->calls[from++];
}

/* Each argument is as likely, so that calls with many of them get most changes. */
static void mutate_any_arg(struct program *p)
{
	unsigned int sum = 0, at = 0, number;

	for (unsigned int i = 0; i < p->nr_calls; i++)
		sum += nr_args_of(&call_types[p->calls[i].nr]);
	if (!sum)
		return;
	number = random_number() % sum;
	while (number >= nr_args_of(&call_types[p->calls[at].nr]))
		number -= nr_args_of(&call_types[p->calls[at++].nr]);
	mutate_arg(&p->calls[at].args[number], &call_types[p->calls[at].nr].args[number]);
}

static void mutate_once(struct program *p, const struct program *other)
{
	unsigned int at = random_number() % p->nr_calls;

	switch (random_number() % 10) {
	case 0:
		join_programs(p, other);
		break;
	case 1:
		if (p->nr_calls > 1)
			remove_call(p, at);
		break;
	case 2:
		p->calls[at] = random_call();
		break;
	case 3:
		insert_call(p, at, p->calls[random_number() % p->nr_calls]);
		break;
	case 4:
	case 5:
		insert_call(p, random_number() % (p->nr_calls + 1), random_call());
		break;
	default:
		mutate_any_arg(p);
	}
}

void mutate_program(struct program *p, const struct program *other)
{
	do
		mutate_once(p, other);
	while (!one_in(3));
	trim_program(p);
}

/* --- text --- */

static unsigned int nr_args_used(const struct call *call)
{
	unsigned int nr = nr_args_of(&call_types[call->nr]);

	while (nr && !call->args[nr - 1].n && !call->args[nr - 1].from_end)
		nr--;
	return nr;
}

/* Leaves @text empty if the program does not fit. */
void print_program(const struct program *p, char text[MAX_TEXT])
{
	size_t len = 0;

	text[0] = '\0';
	for (unsigned int i = 0; i < p->nr_calls; i++) {
		const struct call *call = &p->calls[i];

		len += snprintf(text + len, MAX_TEXT - len, "%s%s", i ? ";" : "",
				call_types[call->nr].name);
		for (unsigned int j = 0; j < nr_args_used(call) && len < MAX_TEXT; j++)
			len += snprintf(text + len, MAX_TEXT - len, " %s%llx",
					call->args[j].from_end ? "~" : "",
					(unsigned long long)call->args[j].n);
		if (len >= MAX_TEXT) {
			text[0] = '\0';
			return;
		}
	}
}

static bool parse_call(struct call *call, char *text)
{
	char *rest, *word = strtok_r(text, " ", &rest), *end;
	unsigned int nr = 0;

	*call = (struct call){ .nr = word ? call_named(word) : nr_call_types };
	if (call->nr == nr_call_types)
		return false;
	while ((word = strtok_r(NULL, " ", &rest))) {
		if (nr == nr_args_of(&call_types[call->nr]))
			return false;
		call->args[nr].from_end = *word == '~';
		word += *word == '~';
		call->args[nr++].n = strtoull(word, &end, 16);
		if (end == word || *end)
			return false;
	}
	return true;
}

bool parse_program(struct program *p, const char *text)
{
	char copy[MAX_TEXT], *rest, *part;

	if (strlen(text) >= MAX_TEXT)
		return false;
	memcpy(copy, text, strlen(text) + 1);
	p->nr_calls = 0;
	for (part = strtok_r(copy, ";\n", &rest); part; part = strtok_r(NULL, ";\n", &rest))
		if (p->nr_calls == MAX_CALLS || !parse_call(&p->calls[p->nr_calls++], part))
			return false;
	return p->nr_calls;
}
