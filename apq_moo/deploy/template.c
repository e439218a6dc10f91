/* @TITLE@

   @FIGURES@
   C99 without libraries or heap. It gives the logits of the network that was exported to the last
   bit: sums are integers, each result is then rounded as IEEE single precision is, once behind the
   product with the channel's gain and once behind the sum with its bias. */
#include "net.h"

#include <float.h>

#if FLT_EVAL_METHOD != 0
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

typedef struct {
    const uint8_t *next;
    uint32_t held;
    uint8_t n_held, bits;
} Bits;

static Bits bits_from(const uint8_t *bytes, uint32_t index, uint8_t bits)
{
    Bits found = {bytes, 0, 0, bits};
    const uint32_t first = index * bits;
    const uint8_t skipped = first & 7;
    found.next += first >> 3;
    if (skipped) {
        found.held = (uint32_t)*found.next++ >> skipped;
        found.n_held = (uint8_t)(8 - skipped);
    }
    return found;
}

static inline uint8_t take(Bits *from)
{
    uint32_t value;
    if (from->n_held < from->bits) {
        from->held |= (uint32_t)*from->next++ << from->n_held;
        from->n_held = (uint8_t)(from->n_held + 8);
    }
    value = from->held & ((1u << from->bits) - 1);
    from->held >>= from->bits;
    from->n_held = (uint8_t)(from->n_held - from->bits);
    return (uint8_t)value;
}

static void put(uint8_t *bytes, uint32_t index, uint8_t bits, uint8_t value)
{
    const uint32_t first = index * bits, shift = first & 7;
    const uint32_t mask = ((1u << bits) - 1) << shift, moved = (uint32_t)value << shift;
    uint8_t *at = bytes + (first >> 3);
    at[0] = (uint8_t)((at[0] & ~mask) | moved);
    if (shift + bits > 8)
        at[1] = (uint8_t)((at[1] & ~(mask >> 8)) | (moved >> 8));
}

/* -- integers and floats ----------------------------------------------------------------------- */

/* The level of a value, rounded to nearest, ties to even, by adding and taking away 1.5 * 2^23. */
static uint8_t level_of(float value, Grid grid)
{
    const float low = -(float)grid.zero, high = (float)((1 << grid.bits) - 1 - grid.zero);
    float level = value * (1.0f / grid.step);
    level = level < low ? low : level > high ? high : level;
    level = level + 12582912.0f;
    level = level - 12582912.0f;
    return (uint8_t)((int32_t)level + grid.zero);
}

#if BETWEEN_BITS == 8

static float value_of(uint8_t level, Grid grid)
{
    return (float)(level - grid.zero) * grid.step;
}

static float load(const uint8_t *bytes, uint32_t index, Grid grid)
{
    return value_of(bytes[index], grid);
}

static void store(uint8_t *bytes, uint32_t index, float value, const Layer *layer)
{
    const Grid grid = grids[layer->output];
    uint8_t level = level_of(value, grid);
    if (layer->flags & SHORTCUT) {
        value = value_of(level, grid) + load(bytes, index, grids[layer->stored]);
        level = level_of(value, grids[layer->total]);
    }
    bytes[index] = level;
}

#else

typedef union {
    float value;
    uint32_t bits;
} Float;

#if BETWEEN_BITS == 16

/* IEEE half precision, subnormal numbers and infinity included. */
static float load(const uint8_t *bytes, uint32_t index, Grid grid)
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

static float load(const uint8_t *bytes, uint32_t index, Grid grid)
{
    const uint8_t *at = bytes + 4 * index;
    Float found;
    (void)grid;
    found.bits = at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
    return found.value;
}

#endif

static void store(uint8_t *bytes, uint32_t index, float value, const Layer *layer)
{
    const uint32_t n = BETWEEN_BITS / 8;
    uint32_t i, bits;
    if (layer->flags & SHORTCUT)
        value = value + load(bytes, index, grids[0]);
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

/* -- layers ------------------------------------------------------------------------------------ */

/* The mean of a channel over all pixels, summed in double precision. */
static float pooled(const Layer *layer, uint32_t channel)
{
    const uint32_t area = (uint32_t)layer->size * layer->size;
    double sum = 0;
    uint32_t i;
    for (i = 0; i < area; i++)
        sum += (double)load(arena.bytes + layer->in, i * layer->c_in + channel, grids[layer->stored]);
    return (float)(sum / area);
}

/* Levels of n values from the index-th that a layer reads, to every stride-th byte. */
static void read(const Layer *layer, const Picture *picture, uint32_t index, uint32_t n, uint8_t *to,
                 uint32_t stride)
{
    const Grid grid = grids[layer->input];
    const uint8_t *from = arena.bytes + layer->in;
    Bits packed;
    uint32_t i;
    switch (layer->from) {
    case PICTURE:
        for (i = 0; i < n; i++, to += stride) {
            const uint8_t pixel = picture->at[index + i];
            *to = picture->levels ? pixel : level_of((float)pixel / 255.0f, grid);
        }
        break;
    case STORED:
        for (i = 0; i < n; i++, to += stride)
            *to = level_of(load(from, index + i, grids[layer->stored]), grid);
        break;
    case PACKED:
        packed = bits_from(from, index, grid.bits);
        for (i = 0; i < n; i++, to += stride)
            *to = take(&packed);
        break;
    default:
        for (i = 0; i < n; i++, to += stride)
            *to = level_of(pooled(layer, index + i), grid);
    }
}

/* Scale a sum of levels and give it on. */
static void give(const Layer *layer, uint32_t place, uint32_t channel, int32_t sum)
{
    const float *const scaling = affine[layer->channels + channel];
    const uint32_t index = place * layer->c_out + channel;
    float value = (float)sum * scaling[0];
    value = value + scaling[1];
    if (layer->flags & RELU6)
        value = value < 0.0f ? 0.0f : value > 6.0f ? 6.0f : value;
    if (layer->to == TO_STORED)
        store(arena.bytes + layer->out, index, value, layer);
    else if (layer->to == TO_PACKED)
        put(arena.bytes + layer->out, index, grids[layer->output].bits,
            level_of(value, grids[layer->output]));
    else
        arena.logits[channel] = value;
}

static uint32_t size_out(const Layer *layer)
{
    return layer->from == POOLED ? 1 : (layer->size - 1u) / layer->stride + 1;
}

/* What one output of a dense layer is made of, to every TOGETHER-th byte. */
static void gather(const Layer *layer, const Picture *picture, uint32_t place, uint8_t *to)
{
    const int32_t size = layer->size, width = (int32_t)size_out(layer), edge = layer->kernel / 2;
    const int32_t top = (int32_t)place / width * layer->stride - edge;
    const int32_t left = (int32_t)place % width * layer->stride - edge;
    int32_t y, x;
    uint32_t i;
    for (y = top; y < top + layer->kernel; y++) {
        for (x = left; x < left + layer->kernel; x++) {
            if (y >= 0 && y < size && x >= 0 && x < size)
                read(layer, picture, (uint32_t)(y * size + x) * layer->c_in, layer->c_in, to, TOGETHER);
            else
                for (i = 0; i < layer->c_in; i++)
                    to[i * TOGETHER] = grids[layer->input].zero;
            to += layer->c_in * TOGETHER;
        }
    }
}

/* Every output is made of all inputs below the kernel. */
static void dense(const Layer *layer, const Picture *picture)
{
    uint8_t inputs[MOST_INPUTS * TOGETHER];
    const uint32_t places = size_out(layer) * size_out(layer);
    const uint32_t n_inputs = (uint32_t)layer->kernel * layer->kernel * layer->c_in;
    const int32_t top = (1 << (layer->w_bits - 1)) - 1, zero = grids[layer->input].zero;
    uint32_t first, t, o, i;
    for (first = 0; first < places; first += TOGETHER) {
        Bits packed = bits_from(weights + layer->weights, 0, layer->w_bits);
        for (t = 0; t < TOGETHER; t++) {
            if (first + t < places)
                gather(layer, picture, first + t, inputs + t);
            else
                for (i = 0; i < n_inputs; i++)
                    inputs[i * TOGETHER + t] = 0;
        }
        for (o = 0; o < layer->c_out; o++) {
            int32_t sums[TOGETHER] = {0}, total = 0;
            const uint8_t *input = inputs;
            for (i = 0; i < n_inputs; i++, input += TOGETHER) {
                const int32_t weight = (int32_t)take(&packed) - top;
                total += weight;
                for (t = 0; t < TOGETHER; t++)
                    sums[t] += weight * input[t];
            }
            for (t = 0; t < TOGETHER && first + t < places; t++)
                give(layer, first + t, o, sums[t] - zero * total);
        }
    }
}

/* A row of one channel with padding on both sides. */
static void read_row(const Layer *layer, const Picture *picture, int32_t y, uint32_t channel,
                     uint8_t *row)
{
    const uint32_t size = layer->size, edge = layer->kernel / 2;
    const uint8_t zero = grids[layer->input].zero;
    uint32_t x;
    for (x = 0; x < size + 2 * edge; x++)
        row[x] = zero;
    if (y >= 0 && y < layer->size)
        for (x = 0; x < size; x++)
            read(layer, picture, ((uint32_t)y * size + x) * layer->c_in + channel, 1, row + edge + x, 1);
}

/* Every output is made of one channel; rows are unpacked once and kept while they are needed. */
static void depthwise(const Layer *layer, const Picture *picture)
{
    uint8_t rows[MOST_KERNEL][LONGEST_ROW];
    int8_t kernel[MOST_KERNEL * MOST_KERNEL];
    const uint32_t width = size_out(layer), k = layer->kernel;
    const int32_t edge = layer->kernel / 2, top = (1 << (layer->w_bits - 1)) - 1;
    Bits packed = bits_from(weights + layer->weights, 0, layer->w_bits);
    uint32_t channel, oy, ox, i, j;
    for (channel = 0; channel < layer->c_out; channel++) {
        int32_t total = 0, next = -edge;
        for (i = 0; i < k * k; i++) {
            kernel[i] = (int8_t)((int32_t)take(&packed) - top);
            total += kernel[i];
        }
        total *= grids[layer->input].zero;
        for (oy = 0; oy < width; oy++) {
            const int32_t first = (int32_t)(oy * layer->stride) - edge;
            next = next < first ? first : next;
            for (; next < first + (int32_t)k; next++)
                read_row(layer, picture, next, channel * layer->c_in / layer->c_out,
                         rows[(uint32_t)(next + edge) % k]);
            for (ox = 0; ox < width; ox++) {
                int32_t sum = -total;
                for (i = 0; i < k; i++) {
                    const uint8_t *row = rows[(oy * layer->stride + i) % k] + ox * layer->stride;
                    for (j = 0; j < k; j++)
                        sum += kernel[i * k + j] * row[j];
                }
                give(layer, oy * width + ox, channel, sum);
            }
        }
    }
}

static int classify(const Picture *picture)
{
    const Layer *layer;
    int class = 0, i;
    for (layer = layers; layer < layers + N_LAYERS; layer++) {
        if (layer->flags & DEPTHWISE)
            depthwise(layer, picture);
        else
            dense(layer, picture);
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
