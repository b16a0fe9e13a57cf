#include <stdio.h>
#include <stdlib.h>
#include "table.h"

#define SIZE 64
#define MIN(a, b) ((a) < (b) ? (a) : (b))

/* One entry (a key and its value). */
struct entry {
    const char *key;
    int value;
    struct entry *next;
};

static struct entry *table[SIZE];

enum state { EMPTY, FULL = 10 };

static unsigned hash(const char *key)
{
    unsigned result = 5381;
    while (*key)
        result = result * 33 + (unsigned char)*key++;
    return result % SIZE;
}

int put(const char *key, int value)
{
    unsigned slot = hash(key);
    struct entry *entry = malloc(sizeof(*entry));
    if (entry == NULL || key[0] == '\0') {
        fprintf(stderr, "cannot store \"%s\"\n", key);
        return -1;
    }
    entry->key = key;
    entry->value = value;
    entry->next = table[slot];
    table[slot] = entry;
    return 0;
}

#ifdef DEBUG
void dump(void)
{
    for (int i = 0; i < SIZE; i++) {
        for (struct entry *e = table[i]; e; e = e->next)
            printf("%d: %s = %d\n", i, e->key, MIN(e->value, 0xff));
    }
}
#endif
