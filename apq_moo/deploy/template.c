/* @TITLE@

   @FIGURES@
   C99 without libraries or heap. It gives the logits of the network that was exported to the last
   bit: sums are integers, each result is then rounded as IEEE single precision is, once behind the
   product with the channel's gain and once behind the sum with its bias. */
#include "net.h"

#include <float.h>

#if FLT_EVAL_METHOD != 0 && FLT_EVAL_METHOD != 16 /* 16: also halves in their own */
#error "floats must be evaluated in their own precision (on 32-bit x86: -msse2 -mfpmath=sse)"
#endif
#ifdef __FAST_MATH__
#error "fast mathematics would round otherwise"
#endif
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=off") /* no fused multiplication and addition */
#else
#pragma STDC FP_CONTRACT OFF
#endif

#define BETWEEN_BITS @BETWEEN@ /* between blocks: 8 for integers, 16 or 32 for floats */
#define N_LAYERS @LAYERS@
#define TOGETHER 4     /* places of which a weight that was unpacked is multiplied */
#define MOST_INPUTS @INPUTS@ /* values that an output of a dense layer is made of */
#define MOST_KERNEL @KERNEL@ /* of a depthwise layer, and its longest row with padding */
#define LONGEST_ROW @ROW@

/* Integers from -zero to 2^bits - 1 - zero, stored with zero added; 1 stands for step. */
typedef struct {
    float step;
    uint8_t zero, bits;
} Grid;

enum { PICTURE, STORED, PACKED, POOLED };            /* where a layer reads, */
enum { DEPTHWISE = 1, RELU6 = 2, SHORTCUT = 4 };     /* what it is, */
enum { TO_STORED, TO_PACKED, TO_LOGITS };            /* and where it writes */

typedef struct {
    uint16_t c_in, c_out, size;
    uint8_t kernel, stride, w_bits, flags, from, to;
    uint16_t input, stored, output, total; /* grids: multiplied, read or kept, given, with shortcut */
    uint32_t in, out;                      /* bytes of the arena */
    uint32_t weights, channels;            /* the first of each */
} Layer;

static const Grid grids[] = {
@GRIDS@};

/* c_in, c_out, size, kernel, stride, w_bits, flags, from, to, input, stored, output, total, in, out,
   weights, channels */
static const Layer layers[N_LAYERS] = {
@TABLE@};

/* Levels of all weights with 2^(bits-1) - 1 added, each in its bits, the lowest first; every layer
   begins with a byte. Dense: by output, row, column, input; depthwise: by channel, row, column. */
static const uint8_t weights[] = {
@CODES@};

/* Gain and bias of all output channels. */
static const float affine[][2] = {
@AFFINE@};

static union {
    uint8_t bytes[NET_ARENA_BYTES];
    float logits[NET_CLASSES];
} arena;

typedef struct {
    const uint8_t *at;
    int levels; /* whether they are levels already */
} Picture;

/* -- packed integers --------------------------------------------------------------------------- */

static uint8_t get(const uint8_t *bytes, uint32_t first_bit, uint32_t bits)
{
    const uint8_t *at = bytes + (first_bit >> 3);
    const uint32_t shift = first_bit & 7;
    uint32_t value = (uint32_t)at[0] >> shift;
    if (shift + bits > 8)
        value |= (uint32_t)at[1] << (8 - shift);
    return (uint8_t)(value & ((1u << bits) - 1));
}

static void put(uint8_t *bytes, uint32_t first_bit, uint32_t bits, uint32_t value)
{
    uint8_t *at = bytes + (first_bit >> 3);
    const uint32_t shift = first_bit & 7, mask = ((1u << bits) - 1) << shift;
    at[0] = (uint8_t)((at[0] & ~mask) | value << shift);
    if (shift + bits > 8)
        at[1] = (uint8_t)((at[1] & ~(mask >> 8)) | value >> (8 - shift));
}

/* Weights one behind the other. */
typedef struct {
    const uint8_t *next;
    uint32_t held, n_held, bits, mask;
    int32_t top;
} Weights;

static Weights weights_of(const Layer *layer)
{
    const uint32_t mask = (1u << layer->w_bits) - 1;
    const Weights found = {weights + layer->weights, 0, 0, layer->w_bits, mask, (int32_t)(mask >> 1)};
    return found;
}

static inline int32_t take(Weights *from)
{
    int32_t weight;
    if (from->n_held < from->bits) {
        from->held |= (uint32_t)*from->next++ << from->n_held;
        from->n_held += 8;
    }
    weight = (int32_t)(from->held & from->mask) - from->top;
    from->held >>= from->bits;
    from->n_held -= from->bits;
    return weight;
}

/* -- integers and floats ----------------------------------------------------------------------- */

/* A grid as values are rounded to it. */
typedef struct {
    float inverse, low, high;
    int32_t zero;
} Levels;

static Levels levels_of(const Grid *grid)
{
    const int32_t high = (1 << grid->bits) - 1 - grid->zero;
    const Levels found = {1.0f / grid->step, -(float)grid->zero, (float)high, grid->zero};
    return found;
}

/* The level of a value, rounded to nearest, ties to even, by adding and taking away 1.5 * 2^23. */
static inline uint8_t level_of(float value, const Levels *levels)
{
    float level = value * levels->inverse;
    level = level < levels->low ? levels->low : level;
    level = level > levels->high ? levels->high : level;
    level = level + 12582912.0f;
    level = level - 12582912.0f;
    return (uint8_t)((int32_t)level + levels->zero);
}

#if BETWEEN_BITS == 8

static inline float value_of(uint8_t level, const Grid *grid)
{
    return (float)((int32_t)level - grid->zero) * grid->step;
}

static inline float load(const uint8_t *bytes, uint32_t index, const Grid *grid)
{
    return value_of(bytes[index], grid);
}

#else

typedef union {
    float value;
    uint32_t bits;
} Float;

#if BETWEEN_BITS == 16

/* IEEE half precision, subnormal numbers and infinity included. */
static float load(const uint8_t *bytes, uint32_t index, const Grid *grid)
{
    const uint32_t half = bytes[2 * index] | (uint32_t)bytes[2 * index + 1] << 8;
    const uint32_t exponent = half & 0x7c00;
    Float found, least;
    (void)grid;
    least.bits = 113u << 23;
    found.bits = ((half & 0x7fff) << 13) + (exponent == 0x7c00 ? 224u << 23 : 112u << 23);
    if (exponent == 0) {
        found.bits += 1u << 23;
        found.value -= least.value;
    }
    found.bits |= (half & 0x8000) << 16;
    return found.value;
}

static uint32_t half_of(float value)
{
    Float number;
    uint32_t sign, half;
    number.value = value;
    sign = number.bits >> 16 & 0x8000;
    number.bits &= 0x7fffffff;
    if (number.bits >= 143u << 23) {
        half = 0x7c00;
    } else if (number.bits < 113u << 23) {
        number.value += 0.5f; /* whose last bit is that of the least half */
        half = number.bits - (126u << 23);
    } else {
        half = (number.bits - (112u << 23) + 0xfff + (number.bits >> 13 & 1)) >> 13;
    }
    return sign | half;
}

#else

static float load(const uint8_t *bytes, uint32_t index, const Grid *grid)
{
    const uint8_t *at = bytes + 4 * index;
    Float found;
    (void)grid;
    found.bits = at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
    return found.value;
}

#endif

static void store_float(uint8_t *bytes, uint32_t index, float value)
{
    const uint32_t n = BETWEEN_BITS / 8;
    uint32_t i, bits;
#if BETWEEN_BITS == 16
    bits = half_of(value);
#else
    Float number;
    number.value = value;
    bits = number.bits;
#endif
    for (i = 0; i < n; i++)
        bytes[n * index + i] = (uint8_t)(bits >> 8 * i);
}

#endif

/* -- what layers read and give ----------------------------------------------------------------- */

/* A layer while it runs. */
typedef struct {
    const Layer *layer;
    const Picture *picture;
    const uint8_t *in;
    uint8_t *out;
    const float (*affine)[2];
    const Grid *stored;
    Levels input, output, total;
    int32_t width; /* of its output */
    uint32_t bits; /* of its input and of its output, where they are packed */
    uint32_t bits_out;
} Task;

static Task task_of(const Layer *layer, const Picture *picture)
{
    Task task;
    task.layer = layer;
    task.picture = picture;
    task.in = arena.bytes + layer->in;
    task.out = arena.bytes + layer->out;
    task.affine = affine + layer->channels;
    task.stored = grids + layer->stored;
    task.input = levels_of(grids + layer->input);
    task.output = levels_of(grids + layer->output);
    task.total = levels_of(grids + layer->total);
    task.width = layer->from == POOLED ? 1 : (layer->size - 1) / layer->stride + 1;
    task.bits = grids[layer->input].bits;
    task.bits_out = grids[layer->output].bits;
    return task;
}

/* The mean of a channel over all pixels, summed in double precision. */
static float pooled(const Task *task, uint32_t channel)
{
    const uint32_t area = (uint32_t)task->layer->size * task->layer->size;
    double sum = 0;
    uint32_t i;
    for (i = 0; i < area; i++)
        sum += (double)load(task->in, i * task->layer->c_in + channel, task->stored);
    return (float)(sum / area);
}

/* Levels of n values of a layer's input, of which the first and the distance are given, to bytes at
   another distance. */
static void read(const Task *task, uint32_t index, uint32_t step, uint32_t n, uint8_t *to,
                 uint32_t stride)
{
    const uint32_t end = index + n * step;
    switch (task->layer->from) {
    case PICTURE:
        for (; index != end; index += step, to += stride) {
            const uint8_t pixel = task->picture->at[index];
            *to = task->picture->levels ? pixel : level_of((float)pixel / 255.0f, &task->input);
        }
        break;
    case STORED:
        for (; index != end; index += step, to += stride)
            *to = level_of(load(task->in, index, task->stored), &task->input);
        break;
    case PACKED:
        for (; index != end; index += step, to += stride)
            *to = get(task->in, index * task->bits, task->bits);
        break;
    default:
        for (; index != end; index += step, to += stride)
            *to = level_of(pooled(task, index), &task->input);
    }
}

/* Store what leaves a block, behind its shortcut if it has one. */
static inline void store(const Task *task, uint32_t index, float value)
{
#if BETWEEN_BITS == 8
    uint8_t level = level_of(value, &task->output);
    if (task->layer->flags & SHORTCUT) {
        value = value_of(level, grids + task->layer->output) + load(task->out, index, task->stored);
        level = level_of(value, &task->total);
    }
    task->out[index] = level;
#else
    if (task->layer->flags & SHORTCUT)
        value = value + load(task->out, index, task->stored);
    store_float(task->out, index, value);
#endif
}

/* Scale a sum of levels and give it on. */
static inline void give(const Task *task, uint32_t place, uint32_t channel, int32_t sum)
{
    const uint32_t index = place * task->layer->c_out + channel;
    float value = (float)sum * task->affine[channel][0];
    value = value + task->affine[channel][1];
    if (task->layer->flags & RELU6) {
        value = value < 0.0f ? 0.0f : value;
        value = value > 6.0f ? 6.0f : value;
    }
    if (task->layer->to == TO_STORED)
        store(task, index, value);
    else if (task->layer->to == TO_PACKED)
        put(task->out, index * task->bits_out, task->bits_out, level_of(value, &task->output));
    else
        arena.logits[channel] = value;
}

/* -- layers ------------------------------------------------------------------------------------ */

/* What an output of a dense layer is made of, to every TOGETHER-th byte. */
static void gather(const Task *task, uint32_t place, uint8_t *to)
{
    const Layer *layer = task->layer;
    const int32_t size = layer->size, edge = layer->kernel / 2, n = layer->c_in;
    const int32_t top = (int32_t)place / task->width * layer->stride - edge;
    const int32_t left = (int32_t)place % task->width * layer->stride - edge;
    int32_t y, x, i;
    for (y = top; y < top + layer->kernel; y++) {
        for (x = left; x < left + layer->kernel; x++, to += n * TOGETHER) {
            if (y >= 0 && y < size && x >= 0 && x < size)
                read(task, (uint32_t)((y * size + x) * n), 1, (uint32_t)n, to, TOGETHER);
            else
                for (i = 0; i < n; i++)
                    to[i * TOGETHER] = (uint8_t)task->input.zero;
        }
    }
}

/* Every output is made of all inputs below the kernel; a weight that is unpacked serves some places
   at once. */
static void dense(const Task *task)
{
    uint8_t inputs[MOST_INPUTS * TOGETHER];
    const Layer *layer = task->layer;
    const uint32_t places = (uint32_t)(task->width * task->width);
    const uint8_t *const end = inputs + (uint32_t)layer->kernel * layer->kernel * layer->c_in * TOGETHER;
    uint32_t first, n, t, o;
    for (first = 0; first < places; first += n) {
        Weights packed = weights_of(layer);
        n = places - first < TOGETHER ? 1 : TOGETHER;
        for (t = 0; t < TOGETHER; t++)
            gather(task, first + t % n, inputs + t);
        for (o = 0; o < layer->c_out; o++) {
            int32_t sum0 = 0, sum1 = 0, sum2 = 0, sum3 = 0, total = 0;
            const uint8_t *input;
            for (input = inputs; input != end; input += TOGETHER) {
                const int32_t weight = take(&packed);
                total += weight;
                sum0 += weight * input[0];
                sum1 += weight * input[1];
                sum2 += weight * input[2];
                sum3 += weight * input[3];
            }
            total *= task->input.zero;
            give(task, first, o, sum0 - total);
            if (n == TOGETHER) {
                give(task, first + 1, o, sum1 - total);
                give(task, first + 2, o, sum2 - total);
                give(task, first + 3, o, sum3 - total);
            }
        }
    }
}

/* A row of one channel, which may lie outside the image. */
static void read_row(const Task *task, int32_t y, uint32_t channel, uint8_t *row)
{
    const uint32_t size = task->layer->size, n = task->layer->c_in;
    uint32_t x;
    if (y >= 0 && y < task->layer->size)
        read(task, (uint32_t)y * size * n + channel, n, size, row, 1);
    else
        for (x = 0; x < size; x++)
            row[x] = (uint8_t)task->input.zero;
}

/* Every output is made of one channel; rows are unpacked once and kept while they are needed. */
static void depthwise(const Task *task)
{
    uint8_t rows[MOST_KERNEL][LONGEST_ROW];
    const uint8_t *window[MOST_KERNEL];
    int8_t kernel[MOST_KERNEL * MOST_KERNEL];
    const Layer *layer = task->layer;
    const int32_t k = layer->kernel, edge = layer->kernel / 2;
    Weights packed = weights_of(layer);
    int32_t oy, ox, i, j;
    uint32_t channel;
    for (i = 0; i < k; i++)
        for (j = 0; j < LONGEST_ROW; j++)
            rows[i][j] = (uint8_t)task->input.zero;
    for (channel = 0; channel < layer->c_out; channel++) {
        int32_t total = 0, next = -edge;
        for (i = 0; i < k * k; i++) {
            kernel[i] = (int8_t)take(&packed);
            total += kernel[i];
        }
        total *= task->input.zero;
        for (oy = 0; oy < task->width; oy++) {
            const int32_t first = oy * layer->stride - edge;
            next = next < first ? first : next;
            for (; next < first + k; next++)
                read_row(task, next, channel * layer->c_in / layer->c_out,
                         rows[(next + edge) % k] + edge);
            for (i = 0; i < k; i++)
                window[i] = rows[(first + edge + i) % k];
            for (ox = 0; ox < task->width; ox++) {
                const int8_t *weight = kernel;
                int32_t sum = -total;
                for (i = 0; i < k; i++) {
                    const uint8_t *input = window[i] + ox * layer->stride;
                    for (j = 0; j < k; j++)
                        sum += *weight++ * *input++;
                }
                give(task, (uint32_t)(oy * task->width + ox), channel, sum);
            }
        }
    }
}

static int classify(const Picture *picture)
{
    const Layer *layer;
    int class = 0, i;
    for (layer = layers; layer < layers + N_LAYERS; layer++) {
        const Task task = task_of(layer, picture);
        if (layer->flags & DEPTHWISE)
            depthwise(&task);
        else
            dense(&task);
    }
    for (i = 1; i < NET_CLASSES; i++)
        class = arena.logits[i] > arena.logits[class] ? i : class;
    return class;
}

int net_classify(const uint8_t *pixels)
{
    const Picture picture = {pixels, 0};
    return classify(&picture);
}

int net_classify_levels(const uint8_t *levels)
{
    const Picture picture = {levels, 1};
    return classify(&picture);
}

const float *net_logits(void)
{
    return arena.logits;
}

uint8_t *net_image(void)
{
    return arena.bytes + layers[0].in;
}

/* @ABOUT@ */
