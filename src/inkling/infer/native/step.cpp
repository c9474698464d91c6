// One decoding step of a llama-like model for several sequences, in one parallel region.
//
// A step of a small model is hundreds of tiny operations; as torch calls each costs more than its arithmetic. Here all of
// them follow each other without a break. Each sum runs in an order that depends on the shape of the matrix alone, so a
// sequence's numbers do not depend on how many others there are, nor on the number of threads.
//
// Letters: R sequences, N outputs, K inputs. Matrices are (N, K), rows after each other.

#include <cmath>
#include <cstdint>
#include <cstring>
#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef __AVX512F__
#include <immintrin.h>
#endif
#include <type_traits>
#include <vector>

namespace {

typedef float Floats __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef int8_t Bytes __attribute__((vector_size(16)));
typedef uint8_t Nibbles __attribute__((vector_size(16)));

constexpr int kLanes = 16;
constexpr int kTile = 4;   // sequences that share one reading of a weight
constexpr int kSums = 4;   // partial sums of a product, so that additions need not wait for each other
constexpr int kAhead = 1024; // bytes that are asked for before they are needed
constexpr int kPlacesAhead = 16; // the same for keys and values
constexpr int kBlock = 64; // slots of a block of keys and values

enum Kind { kFloat32 = 0, kBfloat16 = 1, kInt8 = 2, kInt4 = 3 };

template <typename T> inline T load(const void *from) {
    T value;
    std::memcpy(&value, from, sizeof(T));
    return value;
}

inline float from_bfloat16(uint16_t half) {
    const uint32_t word = static_cast<uint32_t>(half) << 16;
    return load<float>(&word);
}

inline uint16_t to_bfloat16(float value) {
    const uint32_t word = load<uint32_t>(&value);
    return static_cast<uint16_t>((word + 0x7fff + ((word >> 16) & 1)) >> 16);
}

inline Floats widen(const uint16_t *from) {
    const Words words = __builtin_convertvector(load<Halves>(from), Words) << 16;
    return load<Floats>(&words);
}

inline Floats read(const float *from) { return load<Floats>(from); }
inline Floats read(const uint16_t *from) { return widen(from); }
#ifdef __AVX512F__ // compilers convert one byte after the other
inline Floats read(const int8_t *from) {
    return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32((__m128i)load<Bytes>(from)));
}
inline void read4(const uint8_t *from, Floats &low, Floats &high) { // looked up by the low four bits of each word
    const __m512 values = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
    const __m512i words = _mm512_cvtepu8_epi32((__m128i)load<Nibbles>(from));
    low = (Floats)_mm512_permutexvar_ps(words, values);
    high = (Floats)_mm512_permutexvar_ps(_mm512_srli_epi32(words, 4), values);
}
#else
inline Floats read(const int8_t *from) { return __builtin_convertvector(load<Bytes>(from), Floats); }
inline void read4(const uint8_t *from, Floats &low, Floats &high) {
    const Nibbles both = load<Nibbles>(from);
    low = __builtin_convertvector(both & 15, Floats) - 8.0f;
    high = __builtin_convertvector(both >> 4, Floats) - 8.0f;
}
#endif

#ifdef __AVX512F__
inline float total(const Floats &lanes) { return _mm512_reduce_add_ps((__m512)lanes); }
#else
inline float total(const Floats &lanes) { // as a tree, so that additions need not wait for each other
    float sums[kLanes];
    std::memcpy(sums, &lanes, sizeof(sums));
    for (int half = kLanes / 2; half > 0; half /= 2)
        for (int lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
    return sums[0];
}
#endif

// e to the power of numbers that are not above 0, to 2 units in the last place (Cephes' polynomial, Moshier 1989).
inline Floats exponential(Floats x) {
    constexpr float kRound = 12582912.0f; // 1.5 * 2^23: adding it leaves a whole number in the low bits
    x = x < -87.0f ? Floats{} - 87.0f : x;
    const Floats shifted = x * 1.44269504f + kRound, whole = shifted - kRound;
    const Floats rest = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    Floats sum = rest * 1.9875691500e-4f + 1.3981999507e-3f;
    sum = sum * rest + 8.3334519073e-3f;
    sum = sum * rest + 4.1665795894e-2f;
    sum = sum * rest + 1.6666665459e-1f;
    sum = sum * rest + 5.0000001201e-1f;
    sum = sum * rest * rest + rest + 1.0f;
    const Words exponent = (load<Words>(&shifted) - 0x4b400000u + 127u) << 23;
    return sum * load<Floats>(&exponent);
}

} // namespace

extern "C" {

struct Matrix {
    const void *data;
    const uint16_t *scales; // int8: (N); int4: (N, 2, K / group), scales, then zeros
    const float *bias;      // (N), or null
    int32_t kind, rows, columns, group;
};

struct Layer {
    const float *attention_norm, *feed_forward_norm, *query_norm, *key_norm; // the last two may be null
    Matrix query, key, value, output, gate, up, down;
};

struct Model {
    const Layer *layers;
    const float *final_norm, *cosines, *sines; // the last two (positions, D / 2)
    Matrix embedding, head;
    int32_t num_layers, hidden, heads, key_value_heads, head_dim, intermediate, vocabulary;
    float epsilon;
};

struct Step {
    const int32_t *tokens, *positions, *blocks; // (R), (R), (R, max_blocks)
    void *keys, *values;                        // (L, blocks, 64, key_value_heads, D)
    float *scratch, *logits;                    // (scratch_floats), (R, V)
    int64_t layer_stride;                       // numbers of a layer's keys
    int32_t rows, max_blocks, memory_kind, max_positions, threads;
};

int64_t inkling_scratch_floats(const Model *model, int32_t rows, int32_t max_positions, int32_t threads) {
    const int64_t width = model->heads * model->head_dim, narrow = model->key_value_heads * model->head_dim;
    const int64_t each = 2 * model->hidden + 2 * width + 2 * narrow + 2 * model->intermediate;
    return rows * each + static_cast<int64_t>(threads) * (max_positions + kLanes) + 64;
}
}

namespace {

// Products of a row of weights with `count` inputs of its width.
template <int count, typename T> inline void products(const T *weights, int64_t width, const float *x, float *results) {
    Floats sums[count][kSums] = {};
    int64_t k = 0;
    for (; k + kSums * kLanes <= width; k += kSums * kLanes) {
        for (size_t byte = 0; byte < kSums * kLanes * sizeof(T); byte += 64)
            __builtin_prefetch(reinterpret_cast<const char *>(weights + k) + kAhead + byte);
        for (int part = 0; part < kSums; ++part) {
            const Floats w = read(weights + k + part * kLanes);
            for (int r = 0; r < count; ++r) sums[r][part] += w * read(x + r * width + k + part * kLanes);
        }
    }
    for (; k < width; k += kLanes) {
        const Floats w = read(weights + k);
        for (int r = 0; r < count; ++r) sums[r][0] += w * read(x + r * width + k);
    }
    for (int r = 0; r < count; ++r)
        results[r] = total((sums[r][0] + sums[r][1]) + (sums[r][2] + sums[r][3]));
}

// What the zeros of a row of 4-bit weights add, from the sums of an input's groups.
inline float offset_of(const uint16_t *zeros, const float *group_sums, int num_groups) {
    Floats sums = {};
    int g = 0;
    for (; g + kLanes <= num_groups; g += kLanes) sums += widen(zeros + g) * read(group_sums + g);
    float rest = 0.0f;
    for (; g < num_groups; ++g) rest = std::fma(from_bfloat16(zeros[g]), group_sums[g], rest);
    return total(sums) + rest;
}

// The same for two codes in a byte, the first in its low half. A weight is (code - 8) * scale + zero of its group, so
// zeros are multiplied with the sums of the groups' inputs, `group_sums`, which all rows of weights share.
template <int count>
inline void products4(const Matrix &m, int n, const float *x, const float *group_sums, float *results) {
    const int num_groups = m.columns / m.group;
    const uint8_t *codes = static_cast<const uint8_t *>(m.data) + static_cast<int64_t>(n) * m.columns / 2;
    const uint16_t *scales = m.scales + static_cast<int64_t>(n) * 2 * num_groups, *zeros = scales + num_groups;
    Floats sums[count][kSums] = {};
    const int shift = __builtin_ctz(m.group / (2 * kLanes)), pairs = m.columns / (2 * kLanes);
    const auto add = [&](int pair, int part) {
        const float scale = from_bfloat16(scales[pair >> shift]);
        Floats low, high;
        read4(codes + static_cast<int64_t>(pair) * kLanes, low, high);
        for (int r = 0; r < count; ++r) { // inputs lie in the order: sixteen even columns, sixteen odd ones
            const float *input = x + static_cast<int64_t>(r) * m.columns + pair * 2 * kLanes;
            Floats both = low * read(input);
            both += high * read(input + kLanes);
            sums[r][part] += both * scale;
        }
    };
    int pair = 0;
    for (; pair + kSums <= pairs; pair += kSums) {
        __builtin_prefetch(codes + static_cast<int64_t>(pair) * kLanes + kAhead);
        add(pair, 0);
        add(pair + 1, 1);
        add(pair + 2, 2);
        add(pair + 3, 3);
    }
    for (; pair < pairs; ++pair) add(pair, 0);
    for (int r = 0; r < count; ++r)
        results[r] = total((sums[r][0] + sums[r][1]) + (sums[r][2] + sums[r][3])) +
                     offset_of(zeros, group_sums + r * num_groups, num_groups);
}

template <int count>
inline void row_products(const Matrix &m, int n, const float *x, const float *group_sums, float *results) {
    const int64_t at = static_cast<int64_t>(n) * m.columns;
    switch (m.kind) {
    case kFloat32: products<count>(static_cast<const float *>(m.data) + at, m.columns, x, results); break;
    case kBfloat16: products<count>(static_cast<const uint16_t *>(m.data) + at, m.columns, x, results); break;
    case kInt8:
        products<count>(static_cast<const int8_t *>(m.data) + at, m.columns, x, results);
        for (int r = 0; r < count; ++r) results[r] *= from_bfloat16(m.scales[n]);
        break;
    default: products4<count>(m, n, x, group_sums, results);
    }
}

#ifdef __AVX512BF16__ // pairs of bf16 numbers multiplied and added at once, into fp32
constexpr int kPairs = 32;

// Products of `wide` rows of weights with `count` inputs, to out (count, N) at the first row's place.
template <int wide, int count>
inline void bfloat16_products(const uint16_t *weights, int64_t width, const uint16_t *x, const float *bias, float *out,
                              int64_t stride) {
    __m512 sums[wide][count][2] = {};
    int64_t k = 0;
    const auto add = [&](int64_t place, int part) {
        __m512bh w[wide];
        for (int n = 0; n < wide; ++n) w[n] = (__m512bh)_mm512_loadu_si512(weights + n * width + place);
        for (int r = 0; r < count; ++r) {
            const __m512bh input = (__m512bh)_mm512_loadu_si512(x + r * width + place);
            for (int n = 0; n < wide; ++n) sums[n][r][part] = _mm512_dpbf16_ps(sums[n][r][part], w[n], input);
        }
    };
    for (; k + 2 * kPairs <= width; k += 2 * kPairs) {
        for (int n = 0; n < wide; ++n) {
            __builtin_prefetch(reinterpret_cast<const char *>(weights + n * width + k) + kAhead);
            __builtin_prefetch(reinterpret_cast<const char *>(weights + n * width + k) + kAhead + 64);
        }
        add(k, 0);
        add(k + kPairs, 1);
    }
    if (k < width) add(k, 0);
    for (int n = 0; n < wide; ++n)
        for (int r = 0; r < count; ++r)
            out[r * stride + n] = total((Floats)_mm512_add_ps(sums[n][r][0], sums[n][r][1])) + (bias ? bias[n] : 0.0f);
}

// `wide` rows of weights with all inputs, in tiles: of four, then of what is left.
template <int wide>
inline void bfloat16_rows(const uint16_t *weights, int64_t width, const uint16_t *x, int rows, const float *bias,
                          float *out, int64_t stride) {
    int r = 0;
    for (; r + 4 <= rows; r += 4)
        bfloat16_products<wide, 4>(weights, width, x + r * width, bias, out + r * stride, stride);
    if (rows - r >= 2) {
        bfloat16_products<wide, 2>(weights, width, x + r * width, bias, out + r * stride, stride);
        r += 2;
    }
    if (r < rows) bfloat16_products<wide, 1>(weights, width, x + r * width, bias, out + r * stride, stride);
}

// The inputs are rounded to bf16 as well, as torch does.
inline void multiply_bfloat16(const Matrix &m, const float *x, int rows, float *out) {
    thread_local std::vector<uint16_t> narrow;
    const int64_t numbers = static_cast<int64_t>(rows) * m.columns;
    narrow.resize(numbers);
    for (int64_t i = 0; i < numbers; i += kLanes) {
        const __m256bh halves = _mm512_cvtneps_pbh(_mm512_loadu_ps(x + i));
        std::memcpy(narrow.data() + i, &halves, sizeof(halves));
    }
    const uint16_t *inputs = narrow.data(), *weights = static_cast<const uint16_t *>(m.data);
    const auto row = [&](int n) { return weights + static_cast<int64_t>(n) * m.columns; };
    const auto bias = [&](int n) { return m.bias ? m.bias + n : nullptr; };
    if (rows >= 8 && m.rows % 2 == 0) { // two rows of weights share each reading of an input
#pragma omp for schedule(static) nowait
        for (int n = 0; n < m.rows; n += 2)
            bfloat16_rows<2>(row(n), m.columns, inputs, rows, bias(n), out + n, m.rows);
    } else {
#pragma omp for schedule(static) nowait
        for (int n = 0; n < m.rows; ++n)
            bfloat16_rows<1>(row(n), m.columns, inputs, rows, bias(n), out + n, m.rows);
    }
}
#endif

// out (R, N) = x (R, K) · matrixᵀ; inside the parallel region. Without the barrier at its end the next one may begin.
inline void multiply(const Matrix &m, const float *x, int rows, float *out) {
#ifdef __AVX512BF16__
    if (m.kind == kBfloat16 && m.columns % kPairs == 0) return multiply_bfloat16(m, x, rows, out);
#endif
    thread_local std::vector<float> group_sums;
    const int num_groups = m.kind == kInt4 ? m.columns / m.group : 0;
    group_sums.resize(static_cast<size_t>(rows) * num_groups + 1);
    for (int i = 0; i < rows * num_groups; ++i) {
        Floats sum = {};
        for (int k = 0; k < m.group; k += kLanes) sum += read(x + static_cast<int64_t>(i) * m.group + k);
        group_sums[i] = total(sum);
    }
#pragma omp for schedule(static) nowait
    for (int n = 0; n < m.rows; ++n) {
        const float bias = m.bias ? m.bias[n] : 0.0f;
        float results[kTile];
        for (int r = 0; r < rows;) {
            const float *inputs = x + static_cast<int64_t>(r) * m.columns, *sums = group_sums.data() + r * num_groups;
            const int count = r + kTile <= rows ? kTile : 1;
            if (count == kTile)
                row_products<kTile>(m, n, inputs, sums, results);
            else
                row_products<1>(m, n, inputs, sums, results);
            for (int i = 0; i < count; ++i) out[static_cast<int64_t>(r + i) * m.rows + n] = results[i] + bias;
            r += count;
        }
    }
}

inline void normalise(const float *x, const float *gain, int width, float epsilon, float *out) {
    Floats squares = {};
    for (int k = 0; k < width; k += kLanes) squares += read(x + k) * read(x + k);
    const float factor = 1.0f / std::sqrt(total(squares) / width + epsilon);
    for (int k = 0; k < width; ++k) out[k] = x[k] * factor * gain[k];
}

// The order in which packed 4-bit weights want their inputs.
inline void part_even_and_odd(float *x, int width) {
    float part[2 * kLanes];
    for (int start = 0; start < width; start += 2 * kLanes) {
        for (int i = 0; i < kLanes; ++i) {
            part[i] = x[start + 2 * i];
            part[kLanes + i] = x[start + 2 * i + 1];
        }
        std::memcpy(x + start, part, sizeof(part));
    }
}

inline void rotate(float *x, const float *cosines, const float *sines, int head_dim) {
    const int half = head_dim / 2;
    for (int i = 0; i < half; ++i) {
        const float first = x[i], second = x[i + half];
        x[i] = first * cosines[i] - second * sines[i];
        x[i + half] = second * cosines[i] + first * sines[i];
    }
}

inline void embed(const Matrix &m, int token, float *out) {
    const int64_t at = static_cast<int64_t>(token) * m.columns;
    for (int k = 0; k < m.columns; ++k) {
        switch (m.kind) {
        case kFloat32: out[k] = static_cast<const float *>(m.data)[at + k]; break;
        case kBfloat16: out[k] = from_bfloat16(static_cast<const uint16_t *>(m.data)[at + k]); break;
        default: out[k] = static_cast<const int8_t *>(m.data)[at + k] * from_bfloat16(m.scales[token]);
        }
    }
}

// Memory that is needed soon; steps between places are longer than what processors foresee.
template <typename T> inline void ask_for(const T *from, int count) {
    for (size_t byte = 0; byte < count * sizeof(T); byte += 64)
        __builtin_prefetch(reinterpret_cast<const char *>(from) + byte);
}

template <typename T>
inline void attend(const Model &model, const Step &step, const T *keys, const T *values, const float *queries, int r,
                   int head, float *scores, float *out) {
    const int dim = model.head_dim, group = head / (model.heads / model.key_value_heads);
    const int seen = step.positions[r] + 1;
    const int32_t *blocks = step.blocks + static_cast<int64_t>(r) * step.max_blocks;
    const float *query = queries + (static_cast<int64_t>(r) * model.heads + head) * dim;
    const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
    const int64_t stride = static_cast<int64_t>(model.key_value_heads) * dim;
    const auto start_of = [&](int place) { return (blocks[place / kBlock] * static_cast<int64_t>(kBlock)) * stride + group * dim; };
    float largest = -INFINITY;
    for (int first = 0; first < seen; first += kBlock) {
        const T *key = keys + start_of(first);
        const int end = first + kBlock < seen ? first + kBlock : seen;
        for (int place = first; place < end; ++place, key += stride) {
            ask_for(key + kPlacesAhead * stride, dim);
            Floats sum = {};
            for (int d = 0; d < dim; d += kLanes) sum += read(key + d) * read(query + d);
            scores[place] = total(sum) * scale;
            if (scores[place] > largest) largest = scores[place];
        }
    }
    for (int place = seen; place % kLanes; ++place) scores[place] = -INFINITY;
    Floats weights = {};
    for (int place = 0; place < seen; place += kLanes) {
        const Floats weight = exponential(read(scores + place) - largest);
        weights += weight;
        std::memcpy(scores + place, &weight, sizeof(weight));
    }
    const float share = 1.0f / total(weights);
    const auto mix = [&](auto parts, int d) { // of so many times sixteen numbers at once
        Floats sums[decltype(parts)::value] = {};
        for (int first = 0; first < seen; first += kBlock) {
            const T *value = values + start_of(first) + d;
            const int end = first + kBlock < seen ? first + kBlock : seen;
            for (int place = first; place < end; ++place, value += stride) {
                ask_for(value + kPlacesAhead * stride, kLanes * decltype(parts)::value);
                for (int part = 0; part < decltype(parts)::value; ++part)
                    sums[part] += scores[place] * read(value + part * kLanes);
            }
        }
        for (Floats &sum : sums) sum *= share;
        std::memcpy(out + d, sums, sizeof(sums));
    };
    int d = 0;
    for (; d + 4 * kLanes <= dim; d += 4 * kLanes) mix(std::integral_constant<int, 4>{}, d);
    for (; d < dim; d += kLanes) mix(std::integral_constant<int, 1>{}, d);
}

template <typename T> inline T stored(float value);
template <> inline float stored<float>(float value) { return value; }
template <> inline uint16_t stored<uint16_t>(float value) { return to_bfloat16(value); }

template <typename T> void run(const Model &model, const Step &step) {
    const int rows = step.rows, hidden = model.hidden, dim = model.head_dim;
    const int width = model.heads * dim, narrow = model.key_value_heads * dim, inner = model.intermediate;
    float *stream = step.scratch, *normed = stream + static_cast<int64_t>(rows) * hidden;
    float *queries = normed + static_cast<int64_t>(rows) * hidden, *mixed = queries + static_cast<int64_t>(rows) * width;
    float *keys = mixed + static_cast<int64_t>(rows) * width, *values = keys + static_cast<int64_t>(rows) * narrow;
    float *gate = values + static_cast<int64_t>(rows) * narrow, *up = gate + static_cast<int64_t>(rows) * inner;
    float *all_scores = up + static_cast<int64_t>(rows) * inner;

#pragma omp parallel num_threads(step.threads)
    {
#ifdef _OPENMP
        const int thread = omp_get_thread_num();
#else
        const int thread = 0;
#endif
        float *scores = all_scores + static_cast<int64_t>(thread) * (step.max_positions + kLanes);
#pragma omp for schedule(static)
        for (int r = 0; r < rows; ++r) embed(model.embedding, step.tokens[r], stream + static_cast<int64_t>(r) * hidden);
        for (int number = 0; number < model.num_layers; ++number) {
            const Layer &layer = model.layers[number];
            T *key_memory = static_cast<T *>(step.keys) + number * step.layer_stride;
            T *value_memory = static_cast<T *>(step.values) + number * step.layer_stride;
#pragma omp for schedule(static)
            for (int r = 0; r < rows; ++r) {
                float *x = normed + static_cast<int64_t>(r) * hidden;
                normalise(stream + static_cast<int64_t>(r) * hidden, layer.attention_norm, hidden, model.epsilon, x);
                if (layer.query.kind == kInt4) part_even_and_odd(x, hidden);
            }
            multiply(layer.query, normed, rows, queries);
            multiply(layer.key, normed, rows, keys);
            multiply(layer.value, normed, rows, values);
#pragma omp barrier
#pragma omp for schedule(static)
            for (int i = 0; i < rows * (model.heads + model.key_value_heads); ++i) {
                const int r = i / (model.heads + model.key_value_heads), head = i % (model.heads + model.key_value_heads);
                const float *cosines = model.cosines + static_cast<int64_t>(step.positions[r]) * (dim / 2);
                const float *sines = model.sines + static_cast<int64_t>(step.positions[r]) * (dim / 2);
                if (head < model.heads) {
                    float *query = queries + (static_cast<int64_t>(r) * model.heads + head) * dim;
                    if (layer.query_norm) normalise(query, layer.query_norm, dim, model.epsilon, query);
                    rotate(query, cosines, sines, dim);
                    continue;
                }
                const int group = head - model.heads;
                float *key = keys + (static_cast<int64_t>(r) * model.key_value_heads + group) * dim;
                const float *value = values + (static_cast<int64_t>(r) * model.key_value_heads + group) * dim;
                if (layer.key_norm) normalise(key, layer.key_norm, dim, model.epsilon, key);
                rotate(key, cosines, sines, dim);
                const int place = step.positions[r];
                const int32_t block = step.blocks[static_cast<int64_t>(r) * step.max_blocks + place / kBlock];
                const int64_t at = (static_cast<int64_t>(block) * kBlock + place % kBlock) * model.key_value_heads + group;
                for (int d = 0; d < dim; ++d) {
                    key_memory[at * dim + d] = stored<T>(key[d]);
                    value_memory[at * dim + d] = stored<T>(value[d]);
                }
            }
#pragma omp for schedule(static)
            for (int i = 0; i < rows * model.heads; ++i)
                attend<T>(model, step, key_memory, value_memory, queries, i / model.heads, i % model.heads, scores,
                          mixed + static_cast<int64_t>(i) * dim);
            if (layer.output.kind == kInt4) {
#pragma omp for schedule(static)
                for (int r = 0; r < rows; ++r) part_even_and_odd(mixed + static_cast<int64_t>(r) * width, width);
            }
            multiply(layer.output, mixed, rows, normed);
#pragma omp barrier
#pragma omp for schedule(static)
            for (int r = 0; r < rows; ++r) {
                float *x = stream + static_cast<int64_t>(r) * hidden, *y = normed + static_cast<int64_t>(r) * hidden;
                for (int k = 0; k < hidden; ++k) x[k] += y[k];
                normalise(x, layer.feed_forward_norm, hidden, model.epsilon, y);
                if (layer.gate.kind == kInt4) part_even_and_odd(y, hidden);
            }
            multiply(layer.gate, normed, rows, gate);
            multiply(layer.up, normed, rows, up);
#pragma omp barrier
#pragma omp for schedule(static)
            for (int64_t i = 0; i < static_cast<int64_t>(rows) * inner; ++i)
                gate[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
            if (layer.down.kind == kInt4) {
#pragma omp for schedule(static)
                for (int r = 0; r < rows; ++r) part_even_and_odd(gate + static_cast<int64_t>(r) * inner, inner);
            }
            multiply(layer.down, gate, rows, normed);
#pragma omp barrier
#pragma omp for schedule(static)
            for (int r = 0; r < rows; ++r) {
                float *x = stream + static_cast<int64_t>(r) * hidden;
                const float *y = normed + static_cast<int64_t>(r) * hidden;
                for (int k = 0; k < hidden; ++k) x[k] += y[k];
            }
        }
#pragma omp for schedule(static)
        for (int r = 0; r < rows; ++r) {
            float *x = normed + static_cast<int64_t>(r) * hidden;
            normalise(stream + static_cast<int64_t>(r) * hidden, model.final_norm, hidden, model.epsilon, x);
            if (model.head.kind == kInt4) part_even_and_odd(x, hidden);
        }
        multiply(model.head, normed, rows, step.logits);
    }
}

} // namespace

extern "C" void inkling_step(const Model *model, const Step *step) {
    if (step->memory_kind == kBfloat16)
        run<uint16_t>(*model, *step);
    else
        run<float>(*model, *step);
}
