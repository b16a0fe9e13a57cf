/* One decode step of a Llama-family model on a CPU, in one call.
 *
 * Compiled on the machine that runs it (native/library.py). It computes what model/forward/llama.py does, for matrices in
 * the formats of matrix.h, with float32 activations, keys and values.
 */
#include <math.h>
#include <stdlib.h>

#include "attention.h"
#include "matrix.h"
#include "team.h"

typedef struct {
    const float *attention_norm; /* [hidden] */
    Matrix qkv;                  /* query heads, then key heads, then value heads; pairs that rotate are adjacent */
    const float *head_norm;      /* [heads + key heads, head size], or NULL */
    Matrix output;
    const float *mlp_norm;
    Matrix gate_up; /* all gates, then all others */
    Matrix down;
} Layer;

typedef struct {
    int64_t num_layers, hidden, heads, kv_heads, head_size;
    float norm_eps, attention_scale, residual_multiplier, unused;
    const Layer *layers;
    const float *final_norm;
    Matrix head;
    const float *rotations; /* [positions, head size / 2]: cosine and sine */
} Model;

typedef struct {
    int64_t num_tokens, prefix;
    float *cache; /* of a layer: key heads, then value heads, each [capacity, head size] */
    int64_t layer_stride, head_stride;
    const int64_t *positions;
    const uint8_t *visible; /* [tokens, tokens]: whether a row sees another, itself included; NULL if causal */
    const int64_t *logit_rows; /* ascending; NULL for all rows */
    int64_t num_logit_rows;
    float *hidden; /* [tokens, hidden]: the embeddings of the tokens; overwritten */
    float *logits; /* [logit rows, vocabulary] */
    int64_t num_threads;
} Step;

/* Memory that a step computes in. */
typedef struct {
    float *normed, *qkv, *attended, *inner, *scores;
    Activations wide; /* what the products with `hidden` or fewer inputs read */
    int32_t *slots;
    Seen *seen;
    int64_t scores_stride;
    int64_t num_rows; /* still computed: after the last attention no row reads another */
} Workspace;

typedef struct {
    const Model *model;
    const Step *step;
    Workspace *space;
} Task;

/* The part of `count` things that a member has, in whole units. */
INLINE void share_of(int64_t count, int64_t unit, int member, int size, int64_t *first, int64_t *last)
{
    const int64_t units = (count + unit - 1) / unit;
    *first = units * member / size * unit;
    *last = units * (member + 1) / size * unit;
    if (*last > count)
        *last = count;
    if (*first > count)
        *first = count;
}

static void normalize(const float *x, const float *weight, int64_t size, float eps, float *result)
{
    floats squares = _mm256_setzero_ps();
    for (int64_t k = 0; k < size; k += LANES) {
        const floats v = load(x + k);
        squares = _mm256_fmadd_ps(v, v, squares);
    }
    const floats factor = _mm256_set1_ps(1.0f / sqrtf(sum_of(squares) / (float)size + eps));
    for (int64_t k = 0; k < size; k += LANES)
        _mm256_storeu_ps(result + k, _mm256_mul_ps(_mm256_mul_ps(load(x + k), factor), load(weight + k)));
}

/* Norm of the residual stream's rows, in the form that a matrix reads. */
static void normalize_rows(const Model *model, const Step *step, Workspace *space, const float *weight, const Matrix *matrix,
                           int member, int size)
{
    for (int64_t t = member; t < space->num_rows; t += size) {
        float *to = space->normed + t * model->hidden;
        normalize(step->hidden + t * model->hidden, weight, model->hidden, model->norm_eps, to);
        prepare_row(matrix, space->normed, t, &space->wide);
    }
    space->wide.floats = space->normed;
    team_meet(size);
}

static void rotate(float *head, const float *rotation, int64_t size)
{
    for (int64_t k = 0; k < size; k += 2) {
        const float x = head[k], y = head[k + 1], cosine = rotation[k], sine = rotation[k + 1];
        head[k] = x * cosine - y * sine;
        head[k + 1] = x * sine + y * cosine;
    }
}

/* Queries, keys and values of this member's heads; keys and values go to the cache. */
static void project_heads(const Model *model, const Layer *layer, int64_t index, const Step *step, Workspace *space, int member,
                          int size)
{
    const int64_t heads = model->heads, kv_heads = model->kv_heads, width = model->head_size;
    const int64_t all = heads + 2 * kv_heads;
    int64_t first, last;
    share_of(all, 1, member, size, &first, &last);
    multiply(&layer->qkv, &space->wide, step->num_tokens, space->qkv, first * width, last * width);
    float *cache = step->cache + index * step->layer_stride;
    for (int64_t t = 0; t < step->num_tokens; t++)
        for (int64_t head = first; head < last; head++) {
            float *values = space->qkv + (t * all + head) * width;
            if (head < heads + kv_heads) {
                if (layer->head_norm)
                    normalize(values, layer->head_norm + head * width, width, model->norm_eps, values);
                rotate(values, model->rotations + step->positions[t] * width, width);
            }
            if (head >= heads)
                memcpy(cache + (head - heads) * step->head_stride + (step->prefix + t) * width, values, width * sizeof(float));
        }
    team_meet(size);
}

/* A row and a query head. The heads of one key head follow one another, and so do the rows of a head. */
typedef struct {
    const float *query;
    float *result, *scores;
    const Seen *seen;
} Query;

static Query query_of(const Model *model, const Step *step, const Workspace *space, float *scores, int64_t unit, int64_t index)
{
    const int64_t head = unit / step->num_tokens, t = unit % step->num_tokens, width = model->head_size;
    return (Query){space->qkv + (t * (model->heads + 2 * model->kv_heads) + head) * width,
                   space->attended + (t * model->heads + head) * width, scores + index * space->scores_stride,
                   &space->seen[t]};
}

INLINE int64_t count_of(const Seen *seen) { return seen->prefix + seen->num_slots; }

INLINE int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }

/* Queries from `first` to `last`, all of one key head: a part of the tokens at a time, for all of them. */
static void attend(const Model *model, const Step *step, Workspace *space, const float *keys, int64_t first, int64_t last,
                   float *scores)
{
    const int64_t width = model->head_size, longest = step->prefix + step->num_tokens;
    const float *values = keys + model->kv_heads * step->head_stride;
    for (int64_t start = 0; start < longest; start += TOKENS_AT_ONCE)
        for (int64_t unit = first; unit < last; unit++) {
            const Query q = query_of(model, step, space, scores, unit, unit - first);
            const int64_t stop = lesser(start + TOKENS_AT_ONCE, count_of(q.seen));
            score(q.query, keys, q.seen, width, start, stop, unit == first, q.scores);
        }
    for (int64_t unit = first; unit < last; unit++) {
        const Query q = query_of(model, step, space, scores, unit, unit - first);
        const float normal = soften(q.scores, count_of(q.seen), model->attention_scale);
        for (int64_t j = 0; j < count_of(q.seen); j += LANES)
            _mm256_storeu_ps(q.scores + j, _mm256_mul_ps(load(q.scores + j), _mm256_set1_ps(normal)));
        memset(q.result, 0, width * sizeof(float));
    }
    for (int64_t start = 0; start < longest; start += TOKENS_AT_ONCE)
        for (int64_t unit = first; unit < last; unit++) {
            const Query q = query_of(model, step, space, scores, unit, unit - first);
            const int64_t stop = lesser(start + TOKENS_AT_ONCE, count_of(q.seen));
            add_values(q.scores, values, q.seen, width, start, stop, unit == first, q.result);
        }
}

static void attend_all(const Model *model, const Layer *layer, int64_t index, const Step *step, Workspace *space, int member,
                       int size)
{
    const float *cache = step->cache + index * step->layer_stride;
    const int64_t group = model->heads / model->kv_heads * step->num_tokens; /* queries of a key head */
    float *scores = space->scores + member * group * space->scores_stride;
    int64_t first, last;
    share_of(step->num_tokens * model->heads, 1, member, size, &first, &last);
    while (first < last) {
        const int64_t stop = lesser(last, (first / group + 1) * group);
        attend(model, step, space, cache + first / group * step->head_stride, first, stop, scores);
        first = stop;
    }
    team_meet(size);
    for (int64_t t = member; t < step->num_tokens; t += size)
        prepare_row(&layer->output, space->attended, t, &space->wide);
    space->wide.floats = space->attended;
    team_meet(size);
}

/* Drop the rows whose logits nobody asked for; by one member. */
static void keep_logit_rows(const Model *model, const Step *step, Workspace *space)
{
    const Matrix *output = &model->layers[model->num_layers - 1].output;
    const int64_t inputs = output->inputs;
    for (int64_t i = 0; step->logit_rows && i < step->num_logit_rows; i++) {
        const int64_t row = step->logit_rows[i];
        memmove(step->hidden + i * model->hidden, step->hidden + row * model->hidden, model->hidden * sizeof(float));
        memmove(space->attended + i * inputs, space->attended + row * inputs, inputs * sizeof(float));
        if (output->format >= ROWS8)
            prepare_row(output, space->attended, i, &space->wide);
    }
    space->num_rows = step->num_logit_rows;
}

/* The residual stream plus a product; the product's rows lie in `into`. */
static void add_product(const Model *model, const Matrix *matrix, const Step *step, Workspace *space, float *into, int member,
                        int size)
{
    int64_t first, last;
    share_of(matrix->outputs, LANES, member, size, &first, &last);
    multiply(matrix, &space->wide, space->num_rows, into, first, last);
    for (int64_t t = 0; t < space->num_rows; t++)
        for (int64_t k = first; k < last; k++)
            step->hidden[t * model->hidden + k] += model->residual_multiplier * into[t * matrix->outputs + k];
    team_meet(size);
}

/* silu(gate) times the other half, by this member's part of both; in place of the gates. */
static void feed_forward(const Layer *layer, Workspace *space, int member, int size)
{
    const int64_t inner = layer->gate_up.outputs / 2;
    const floats one = _mm256_set1_ps(1.0f);
    int64_t first, last;
    share_of(inner, LANES, member, size, &first, &last);
    multiply(&layer->gate_up, &space->wide, space->num_rows, space->inner, first, last);
    multiply(&layer->gate_up, &space->wide, space->num_rows, space->inner, inner + first, inner + last);
    float *activated = space->inner + space->num_rows * 2 * inner;
    for (int64_t t = 0; t < space->num_rows; t++) {
        const float *gates = space->inner + t * 2 * inner, *others = gates + inner;
        for (int64_t k = first; k < last; k += LANES) {
            const floats gate = load(gates + k);
            /* Where -x > 88 the quotient is 0 all the same. */
            const floats power = exponential(_mm256_min_ps(_mm256_sub_ps(_mm256_setzero_ps(), gate), _mm256_set1_ps(88.0f)));
            const floats silu = _mm256_div_ps(gate, _mm256_add_ps(one, power));
            _mm256_storeu_ps(activated + t * inner + k, _mm256_mul_ps(silu, load(others + k)));
        }
    }
    team_meet(size);
    for (int64_t t = member; t < space->num_rows; t += size)
        prepare_row(&layer->down, activated, t, &space->wide);
    space->wide.floats = activated;
    team_meet(size);
}

static void run_member(void *argument, int member, int size)
{
    const Task *task = argument;
    const Model *model = task->model;
    const Step *step = task->step;
    Workspace *space = task->space;
    for (int64_t index = 0; index < model->num_layers; index++) {
        const Layer *layer = &model->layers[index];
        normalize_rows(model, step, space, layer->attention_norm, &layer->qkv, member, size);
        project_heads(model, layer, index, step, space, member, size);
        attend_all(model, layer, index, step, space, member, size);
        if (index == model->num_layers - 1) {
            if (member == 0)
                keep_logit_rows(model, step, space);
            team_meet(size);
        }
        add_product(model, &layer->output, step, space, space->normed, member, size);
        normalize_rows(model, step, space, layer->mlp_norm, &layer->gate_up, member, size);
        feed_forward(layer, space, member, size);
        add_product(model, &layer->down, step, space, space->normed, member, size);
    }
    normalize_rows(model, step, space, model->final_norm, &model->head, member, size);
    int64_t first, last;
    share_of(model->head.outputs, LANES, member, size, &first, &last);
    multiply(&model->head, &space->wide, space->num_rows, step->logits, first, last);
}

/* Memory grows to the largest step so far; one step at a time uses it. */
static void *kept_memory(size_t bytes)
{
    static void *memory;
    static size_t size;
    if (bytes > size) {
        free(memory);
        memory = aligned_alloc(64, size = (bytes + (1 << 16)) & ~(size_t)63);
        if (!memory)
            size = 0;
    }
    return memory;
}

static void *take(char **from, size_t bytes)
{
    void *taken = *from;
    if (*from)
        *from += (bytes + 63) & ~(size_t)63;
    return taken;
}

static size_t lay_out(const Model *model, const Step *step, int threads, char *memory, Workspace *space)
{
    const int64_t rows = step->num_tokens, width = model->head_size;
    const int64_t inner = model->layers[0].gate_up.outputs / 2, attended = model->heads * width;
    const int64_t widest = inner > attended ? (inner > model->hidden ? inner : model->hidden)
                                            : (attended > model->hidden ? attended : model->hidden);
    char *at = memory ? memory : (char *)64;
    char *const start = at;
    space->scores_stride = (step->prefix + rows + 15) / 8 * 8 + 8;
    space->normed = take(&at, rows * model->hidden * sizeof(float));
    space->qkv = take(&at, rows * (model->heads + 2 * model->kv_heads) * width * sizeof(float));
    space->attended = take(&at, rows * attended * sizeof(float));
    space->inner = take(&at, rows * 3 * inner * sizeof(float));
    space->scores = take(&at, threads * (model->heads / model->kv_heads) * rows * space->scores_stride * sizeof(float));
    space->wide.codes = take(&at, rows * widest * sizeof(int16_t));
    space->wide.units = take(&at, rows * sizeof(float));
    space->wide.sums = take(&at, rows * padded_groups(widest) * sizeof(float));
    space->slots = take(&at, rows * rows * sizeof(int32_t));
    space->seen = take(&at, rows * sizeof(Seen));
    return (size_t)(at - start);
}

static void list_visible(const Step *step, Workspace *space)
{
    const int64_t rows = step->num_tokens;
    for (int64_t t = 0; t < rows; t++) {
        int32_t *slots = space->slots + t * rows;
        int64_t count = 0;
        for (int64_t i = 0; i < rows; i++)
            if (step->visible ? step->visible[t * rows + i] : i <= t)
                slots[count++] = (int32_t)i;
        space->seen[t] = (Seen){step->prefix, count, slots};
    }
}

/* Run a step. Returns 0, or 1 if there is no memory for it. */
int forelook_step(const Model *model, const Step *step)
{
    int threads = step->num_threads < 1 ? 1 : step->num_threads > MAX_MEMBERS ? MAX_MEMBERS : (int)step->num_threads;
    Workspace space = {0};
    pthread_mutex_lock(&team.running);
    char *memory = kept_memory(lay_out(model, step, threads, NULL, &space));
    if (memory) {
        lay_out(model, step, threads, memory, &space);
        list_visible(step, &space);
        space.num_rows = step->num_tokens;
        Task task = {model, step, &space};
        team_run(threads, run_member, &task);
    }
    pthread_mutex_unlock(&team.running);
    return memory == NULL;
}

typedef struct {
    const Matrix *matrix;
    const float *x;
    int64_t num_rows;
    float *result;
    Activations prepared;
} Product;

static void multiply_member(void *argument, int member, int size)
{
    Product *product = argument;
    for (int64_t t = member; t < product->num_rows; t += size)
        prepare_row(product->matrix, product->x, t, &product->prepared);
    team_meet(size);
    int64_t first, last;
    share_of(product->matrix->outputs, LANES, member, size, &first, &last);
    multiply(product->matrix, &product->prepared, product->num_rows, product->result, first, last);
}

/* result [rows, outputs] = x [rows, inputs] times the matrix. Returns 0, or 1 if there is no memory for it. */
int forelook_product(const Matrix *matrix, const float *x, int64_t num_rows, float *result, int64_t num_threads)
{
    int threads = num_threads < 1 ? 1 : num_threads > MAX_MEMBERS ? MAX_MEMBERS : (int)num_threads;
    const size_t codes = (num_rows * matrix->inputs * sizeof(int16_t) + 63) & ~(size_t)63;
    const size_t sums = (num_rows * padded_groups(matrix->inputs) * sizeof(float) + 63) & ~(size_t)63;
    pthread_mutex_lock(&team.running);
    char *memory = kept_memory(codes + sums + num_rows * sizeof(float));
    if (memory) {
        Product product = {matrix, x, num_rows, result, {x, (int16_t *)memory, (float *)(memory + codes + sums),
                                                         (float *)(memory + codes)}};
        team_run(threads, multiply_member, &product);
    }
    pthread_mutex_unlock(&team.running);
    return memory == NULL;
}
