/* A QEMU plugin that counts how often each translated block of a program runs between two marker system calls.
 *
 * QEMU's plugin interface, version 1 (QEMU 6.0 to 8.2); its header is not packaged, so what is used of it is declared
 * here. A block is known by its address and its instructions: one that QEMU translates again goes on with its old
 * count. Counters are added to by inline code, without a lock: exact for a program with one thread at work.
 *
 * The file that `out=` names gets the records of all blocks that ran: u64 address, u64 times, u32 instructions, u32 zero,
 * and the instructions' words, u32 each, in the host's byte order.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_info;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, void (*call)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *tb, enum qemu_plugin_op op, void *ptr, uint64_t imm);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t id,
                                          void (*call)(qemu_plugin_id_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t,
                                                       uint64_t, uint64_t, uint64_t, uint64_t, uint64_t));

EXPORT int qemu_plugin_version = 1;

/* getpgid on aarch64, and its markers; see MARK_START and MARK_END of the guest script. */
enum { GETPGID = 155, MARK_START = 0x45444201, MARK_END = 0x45444202 };
enum { BUCKETS = 1 << 17 };

struct block {
    struct block *next;
    uint64_t address, count;
    uint32_t length;
    uint32_t words[];
};

static struct block *buckets[BUCKETS];
static const char *out_path;

static struct block **bucket(uint64_t address)
{
    return &buckets[(address >> 2) * 0x9E3779B97F4A7C15u >> 47];
}

/* Under QEMU's own lock: a translation is reported by one thread at a time. */
static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    uint64_t address = qemu_plugin_tb_vaddr(tb);
    size_t length = qemu_plugin_tb_n_insns(tb);
    struct block *new = calloc(1, sizeof *new + length * sizeof new->words[0]);
    struct block **head = bucket(address), *known;
    (void)id;
    if (!new) {
        fputs("edgebert counter: out of memory\n", stderr);
        abort();
    }
    new->address = address;
    new->length = (uint32_t)length;
    for (size_t i = 0; i < length; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        if (qemu_plugin_insn_size(insn) == sizeof new->words[0])
            memcpy(&new->words[i], qemu_plugin_insn_data(insn), sizeof new->words[0]);
    }
    for (known = *head; known; known = known->next)
        if (known->address == address && known->length == length &&
            !memcmp(known->words, new->words, length * sizeof new->words[0]))
            break;
    if (known) {
        free(new);
    } else {
        new->next = *head;
        *head = known = new;
    }
    qemu_plugin_register_vcpu_tb_exec_inline(tb, QEMU_PLUGIN_INLINE_ADD_U64, &known->count, 1);
}

static void clear(void)
{
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct block *b = buckets[i]; b; b = b->next)
            b->count = 0;
}

static void write_out(void)
{
    FILE *file = fopen(out_path, "wb");
    bool whole = file != NULL;
    for (size_t i = 0; whole && i < BUCKETS; i++)
        for (struct block *b = buckets[i]; whole && b; b = b->next) {
            uint32_t lengths[2] = {b->length, 0};
            if (!b->count)
                continue;
            whole = fwrite(&b->address, 8, 1, file) == 1 && fwrite(&b->count, 8, 1, file) == 1 &&
                    fwrite(lengths, 8, 1, file) == 1 && fwrite(b->words, 4, b->length, file) == b->length;
        }
    if (file && fclose(file))
        whole = false;
    if (!whole) {
        fprintf(stderr, "edgebert counter: cannot write %s\n", out_path);
        remove(out_path);
    }
}

static void called(qemu_plugin_id_t id, unsigned cpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
                   uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    (void)id, (void)cpu, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number != GETPGID)
        return;
    if (a1 == MARK_START)
        clear();
    else if (a1 == MARK_END)
        write_out();
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info *info, int argc, char **argv)
{
    (void)info;
    for (int i = 0; i < argc; i++)
        if (!strncmp(argv[i], "out=", 4))
            out_path = strdup(argv[i] + 4);
    if (!out_path) {
        fputs("edgebert counter: out=FILE is needed\n", stderr);
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    return 0;
}
