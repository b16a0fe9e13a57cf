/* The pool's lookup: places where the end of a context occurred before, and drafts of what followed them.
 *
 * The same as NgramIndex.find and rank, which say why: the same candidates in the same order, and sums in the same
 * order of operations, so that drafts and their shares are the same to the bit. The build defines the constants, in
 * capitals, from those of the Python modules. A Lookup belongs to one index and one thread at a time.
 */

#include <stdint.h>
#include <string.h>

enum { KEY_TOKENS = 4, KEY_BITS = 16, NO_TOKEN = -3 };

typedef struct {
    const uint64_t *keys;
    const int32_t *positions;
    int64_t length;
    int64_t ends[2 * KEY_TOKENS]; /* of one lookup: where entries of 1, 2, ... matching tokens begin, and their ends */
} Segment;

/* Mirrored by functions.py; forelook_lookup_bytes tells when the two differ. */
typedef struct {
    const int32_t *tokens, *owners; /* the log, MAX_REACH longer than its used part */
    Segment *segments;              /* oldest first */
    int32_t *found;                 /* room for HEAD_SCAN + WIDE_SCAN per segment + 2 * MAX_PLACES positions */
    uint8_t *matches;               /* as many */
    const double *weights, *escape; /* by match length */
    int64_t num_segments, head_tokens;
    /* of one lookup */
    int64_t length, sorted_length, limit, reach, without, context_length;
    int32_t context[MAX_MATCH];
    int32_t match_lengths[MAX_PLACES], owners_found[MAX_PLACES], continuations[MAX_PLACES][MAX_REACH];
    int64_t num_places;
    double factors[MAX_PLACES];
    int32_t draft_lengths[MAX_PLACES], draft_tokens[MAX_PLACES][MAX_REACH];
    double draft_shares[MAX_PLACES][MAX_REACH];
} Lookup;

int64_t forelook_lookup_bytes(void) { return sizeof(Lookup); }

/* -- places ------------------------------------------------------------------------------------------------------ */

static int64_t lower_bound(const uint64_t *keys, int64_t low, int64_t high, uint64_t key)
{
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (keys[middle] < key)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Per match length the least key that matches; then, longest first, the least key above those. Returns the depth. */
static int range_keys(const Lookup *self, uint64_t keys[2 * KEY_TOKENS])
{
    int depth = self->context_length < KEY_TOKENS ? (int)self->context_length : KEY_TOKENS;
    uint64_t key = 0;
    for (int k = 0; k < depth; k++) {
        int shift = KEY_BITS * (KEY_TOKENS - 1 - k);
        uint32_t token = (uint32_t)self->context[self->context_length - 1 - k];
        key |= (uint64_t)((token ^ (token >> 16)) & 0xFFFF) << shift;
        uint64_t above = key + ((uint64_t)1 << shift);
        keys[k] = key;
        keys[2 * depth - 1 - k] = above ? above : UINT64_MAX;
    }
    return depth;
}

/* The newest unsorted positions of the context's last token, ascending, at the end of HEAD_SCAN places; how many. */
static int64_t scan_head(const Lookup *self, int32_t *found)
{
    const int32_t *tokens = self->tokens, *owners = self->owners, *context = self->context;
    int64_t start = self->length - 2 * self->head_tokens, end = self->length;
    if (start < self->sorted_length)
        start = self->sorted_length;
    int32_t last = context[self->context_length - 1];
    int64_t count = 0;
    for (int64_t i = start; i < end; i++)
        count += tokens[i] == last;
    int live = 0, close = 0; /* what else is asked of a position */
    int32_t before = 0;
    if (count > HEAD_SCAN) {
        live = 1;
        int64_t num_live = 0, num_close = 0;
        int has_before = self->context_length > 1;
        before = has_before ? context[self->context_length - 2] : 0;
        for (int64_t i = start; i < end; i++) {
            int is_live = (tokens[i] == last) & (owners[i] != NO_OWNER);
            num_live += is_live;
            num_close += is_live & (tokens[i - 1] == before);
        }
        count = num_live;
        if (count > HEAD_SCAN && has_before && num_close) {
            close = 1;
            count = num_close;
        }
    }
    int64_t wanted = count < HEAD_SCAN ? count : HEAD_SCAN, left = wanted;
    for (int64_t i = end - 1; left && i >= start; i--)
        if (tokens[i] == last && (!live || owners[i] != NO_OWNER) && (!close || tokens[i - 1] == before))
            found[HEAD_SCAN - wanted + --left] = (int32_t)i;
    return wanted;
}

/* Positions of entries [low, high), about quota of them: the newest or a sample. Returns how many. */
static int64_t take(const Segment *segment, int64_t low, int64_t high, int64_t quota, int newest, int32_t *found)
{
    int64_t size = high - low, stride = 1, count = 0;
    if (size > quota) {
        if (newest)
            low = high - quota;
        else
            stride = size / quota + 1;
    }
    for (int64_t i = low; i < high; i += stride)
        found[count++] = segment->positions[i];
    return count;
}

/* Positions worth comparing, in *found; how many. */
static int64_t candidates(const Lookup *self, int32_t **found)
{
    int64_t from_head = scan_head(self, self->found);
    int32_t *end = self->found + HEAD_SCAN;
    *found = end - from_head;
    int64_t room = self->limit - from_head / 2;
    uint64_t keys[2 * KEY_TOKENS];
    int depth = range_keys(self, keys), last = 2 * depth - 1;
    for (int64_t s = self->num_segments - 1; s >= 0; s--) {
        Segment *segment = &self->segments[s];
        int64_t *ends = segment->ends;
        ends[0] = lower_bound(segment->keys, 0, segment->length, keys[0]);
        ends[last] = lower_bound(segment->keys, ends[0], segment->length, keys[last]);
        if (ends[0] == ends[last])
            continue;
        for (int k = 1; k < depth; k++) {
            ends[k] = lower_bound(segment->keys, ends[k - 1], ends[last - k + 1], keys[k]);
            ends[last - k] = lower_bound(segment->keys, ends[k], ends[last - k + 1], keys[last - k]);
        }
        if (ends[depth - 1] < ends[depth]) {
            int64_t taken = take(segment, ends[depth - 1], ends[depth], WIDE_SCAN, 1, end);
            room -= taken;
            end += taken;
        }
    }
    for (int level = depth - 2; level >= 0; level--)
        for (int64_t s = self->num_segments - 1; s >= 0; s--) {
            const Segment *segment = &self->segments[s];
            const int64_t *ends = segment->ends;
            if (ends[0] == ends[last])
                continue;
            if (room <= 0)
                return end - *found;
            int64_t quota = room; /* of either side, so at most 2 * limit are taken in all */
            for (int side = 0; side < 2; side++) {
                int64_t low = ends[side ? last - level - 1 : level], high = ends[side ? last - level : level + 1];
                if (low < high) {
                    int64_t taken = take(segment, low, high, quota, 0, end);
                    room -= taken;
                    end += taken;
                }
            }
        }
    return end - *found;
}

/* How many tokens of the context precede a place, its own included; 0 if it is no evidence. */
static int match_length(const Lookup *self, int32_t place, const int32_t wanted[MAX_MATCH + 1])
{
    if (place < MAX_MATCH || place >= self->length)
        return 0;
    const int32_t *tokens = self->tokens + place;
    int32_t owner = self->owners[place];
    if (owner == NO_OWNER || owner == self->without || tokens[1] == BORDER)
        return 0;
    int match = 0;
    while (match <= MAX_MATCH && tokens[-match] == wanted[match])
        match++;
    return match <= MAX_MATCH ? match : 0; /* as argmax of no mismatch */
}

/* Places that agree with the context of self, longest matches first. Returns how many. */
int64_t forelook_find(Lookup *self)
{
    self->num_places = 0;
    if (self->context_length < 1 || self->limit < 1 || self->length <= MAX_MATCH)
        return 0;
    int32_t *found;
    int64_t total = candidates(self, &found);
    for (int64_t i = 0; i < total; i++) { /* their places in memory are far apart: ask for all before reading one */
        __builtin_prefetch(self->tokens + found[i]);
        __builtin_prefetch(self->owners + found[i]);
    }
    int32_t wanted[MAX_MATCH + 1]; /* one more than can match, which no log token equals */
    for (int k = 0; k <= MAX_MATCH; k++)
        wanted[k] = k < self->context_length ? self->context[self->context_length - 1 - k] : NO_TOKEN;
    int64_t slots[MAX_MATCH + 2] = {0}; /* by match length: how many there are, then where the next one goes */
    uint8_t *matches = self->matches;
    int longest = 0;
    for (int64_t i = 0; i < total; i++) {
        int match = match_length(self, found[i], wanted);
        matches[i] = (uint8_t)match;
        slots[match]++;
        longest = match > longest ? match : longest;
    }
    if (!longest)
        return 0;
    /* If there is a long match, what agrees on a token or two is too improbable to be drafted. */
    int least = 1 + longest / LENGTH_RATIO;
    int64_t num_chosen = 0;
    for (int match = longest; match >= least; match--) {
        int64_t count = slots[match];
        slots[match] = num_chosen;
        num_chosen += count;
    }
    if (num_chosen > self->limit)
        num_chosen = self->limit;
    for (int64_t i = 0; i < total; i++) {
        if (matches[i] < least)
            continue;
        int64_t slot = slots[matches[i]]++;
        if (slot >= num_chosen)
            continue;
        self->match_lengths[slot] = matches[i];
        self->owners_found[slot] = self->owners[found[i]];
        memcpy(self->continuations[slot], self->tokens + found[i] + 1, (size_t)self->reach * sizeof(int32_t));
    }
    self->num_places = num_chosen;
    return num_chosen;
}

/* -- drafts ------------------------------------------------------------------------------------------------------ */

typedef uint32_t Members; /* a set of places, numbered by falling first weight: the order of Python's lists */

typedef struct {
    const int32_t *row;
    double factor;
    int match;
} Place;

typedef struct {
    double negative; /* probability of the path */
    int64_t ticket;
    Members members;
    int64_t draft; /* whose first tokens are those of the path */
    int depth;
    int32_t token;
    double share;
} Branch;

typedef struct {
    int32_t token;
    double weight;
    Members members;
} Vote;

static int lowest(Members members) { return __builtin_ctz(members); }

static Members first_of(Members members, int count)
{
    Members rest = members;
    while (rest && count--)
        rest &= rest - 1;
    return members & ~rest;
}

static int agree_to_the_end(const Place *places, Members members, int64_t length)
{
    const int32_t *row = places[lowest(members)].row;
    for (members &= members - 1; members; members &= members - 1)
        if (memcmp(row, places[lowest(members)].row, (size_t)length * sizeof(int32_t)))
            return 0;
    return 1;
}

/* Follow places that agree to the end, as far as they stay probable. Returns the depth reached. */
static int follow(
    const Lookup *self, const Place *places, Members members, double probability, int32_t *tokens, double *shares,
    int depth, int max_length)
{
    const int32_t *row = places[lowest(members)].row;
    int longest = 0;
    for (Members rest = members; rest; rest &= rest - 1) {
        int match = places[lowest(rest)].match;
        longest = match > longest ? match : longest;
    }
    for (; depth < max_length; depth++) {
        double weight = 0.0;
        for (Members rest = members; rest; rest &= rest - 1) {
            const Place *place = &places[lowest(rest)];
            weight += place->factor * self->weights[place->match + depth];
        }
        double share = weight / (weight + self->escape[longest + depth]);
        probability *= share;
        if (row[depth] == BORDER || probability < MIN_PROBABILITY)
            break;
        tokens[depth] = row[depth];
        shares[depth] = share;
    }
    return depth;
}

/* Weights and supporters of the tokens at a depth, in the order of their first supporters. Returns how many tokens. */
static int vote(const Lookup *self, const Place *places, Members members, int depth, Vote *votes, double *total)
{
    int count = 0, longest = 0;
    double sum = 0.0;
    for (; members; members &= members - 1) {
        int number = lowest(members);
        const Place *place = &places[number];
        int32_t token = place->row[depth];
        if (token == BORDER)
            continue;
        int match = place->match + depth, v = 0;
        longest = match > longest ? match : longest;
        double weight = place->factor * self->weights[match];
        sum += weight;
        while (v < count && votes[v].token != token)
            v++;
        if (v < count) {
            votes[v].weight += weight;
            votes[v].members |= (Members)1 << number;
        } else
            votes[count++] = (Vote){token, weight, (Members)1 << number};
    }
    *total = sum + self->escape[longest];
    return count;
}

/* The places in the order of their first weights, as a stable sort has them; only few keep the order they have. */
static void sort_places(const Lookup *self, Place *places)
{
    double first[MAX_PLACES];
    for (int i = 0; i < self->num_places; i++) {
        Place place = {self->continuations[i], self->factors[i], self->match_lengths[i]};
        double weight = place.factor * self->weights[place.match];
        int j = i;
        for (; self->num_places > MEMBERS && j && first[j - 1] < weight; j--) {
            first[j] = first[j - 1];
            places[j] = places[j - 1];
        }
        first[j] = weight;
        places[j] = place;
    }
}

/* Drafts from the places found, whose factors the caller has set, best first. Returns how many.
 *
 * Branches that wait and the path in hand have different places, so there are never more of them than places.
 */
int64_t forelook_rank(Lookup *self, int64_t max_candidates, int64_t max_tokens)
{
    if (self->num_places < 1 || max_candidates < 1)
        return 0;
    Place places[MAX_PLACES];
    sort_places(self, places);
    int max_length = (int)(max_tokens < self->reach ? max_tokens : self->reach);
    Branch heap[MAX_PLACES];
    Vote votes[MAX_PLACES];
    int waiting = 0, depth = 0;
    int64_t tickets = 0, num_drafts = 0;
    double probability = 1.0;
    Members members = UINT32_MAX >> (32 - self->num_places);
    for (;;) {
        int32_t *tokens = self->draft_tokens[num_drafts];
        double *shares = self->draft_shares[num_drafts];
        while (depth < max_length) {
            if (agree_to_the_end(places, members, self->reach)) {
                depth = follow(self, places, members, probability, tokens, shares, depth, max_length);
                break;
            }
            double total;
            int count = vote(self, places, members, depth, votes, &total), best = 0;
            if (!count)
                break;
            for (int v = 1; v < count; v++)
                if (votes[v].weight > votes[best].weight)
                    best = v;
            double least = MIN_PROBABILITY * total / probability;
            for (int v = 0; v < count; v++)
                if (votes[v].weight >= least && v != best) {
                    double share = votes[v].weight / total;
                    heap[waiting++] = (Branch){
                        -probability * share, ++tickets, votes[v].members, num_drafts, depth, votes[v].token, share,
                    };
                }
            double share = votes[best].weight / total;
            probability *= share;
            if (probability < MIN_PROBABILITY)
                break;
            members = first_of(votes[best].members, MEMBERS);
            tokens[depth] = votes[best].token;
            shares[depth] = share;
            depth++;
        }
        if (depth)
            self->draft_lengths[num_drafts++] = depth;
        if (!waiting || num_drafts == max_candidates || num_drafts == MAX_PLACES)
            return num_drafts;
        int next = 0;
        for (int b = 1; b < waiting; b++)
            if (heap[b].negative < heap[next].negative
                || (heap[b].negative == heap[next].negative && heap[b].ticket < heap[next].ticket))
                next = b;
        Branch branch = heap[next];
        heap[next] = heap[--waiting];
        for (depth = 0; depth < branch.depth; depth++) {
            self->draft_tokens[num_drafts][depth] = self->draft_tokens[branch.draft][depth];
            self->draft_shares[num_drafts][depth] = self->draft_shares[branch.draft][depth];
        }
        self->draft_tokens[num_drafts][depth] = branch.token;
        self->draft_shares[num_drafts][depth++] = branch.share;
        members = branch.members;
        probability = -branch.negative;
    }
}
