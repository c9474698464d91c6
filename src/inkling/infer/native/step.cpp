// Decoding steps of a llama-like model for several sequences, each in one parallel region.
//
// A step of a small model is hundreds of tiny operations; as torch calls each costs more than its arithmetic. Here all of
// them follow each other without a break, and where nothing but the next token is wanted, steps do too. A sequence's
// numbers do not depend on how many others there are, nor on the number of threads.
//
// Letters: R sequences, N outputs, K inputs. Matrices are (N, K), rows after each other.

#ifdef _OPENMP
#include <omp.h>
#endif

#include "drawing.h"
#include "products.h"
#include "tiles.h"
#include "vectors.h"

extern "C" {

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
    const int32_t *tokens, *positions, *owners; // (R) each: the token, its place, and the sequence that it belongs to
    const int32_t *blocks, *wanted;             // (sequences, max_blocks); (num_wanted): rows after which logits are asked for
    void *keys, *values;                        // (L, blocks, 64, key_value_heads, D)
    float *scratch, *logits;                    // (scratch_floats), (num_wanted, V)
    int64_t layer_stride;                       // numbers of a layer's keys
    int32_t rows, num_wanted, max_blocks, memory_kind, max_positions, threads;

    const int32_t *blocks_of(int row) const { return blocks + static_cast<int64_t>(owners[row]) * max_blocks; }
};

struct Draws {
    const uint64_t *seeds;      // (R)
    const int32_t *places;      // (R): tokens written before
    const float *temperatures;  // (R)
    const int32_t *limits;      // (R): tokens to write at most
    const int32_t *ends;        // (R, max_ends): tokens after which nothing follows; -1 is none
    int32_t *written, *counts;  // (R, most): new tokens, -1 where none can be drawn; (R)
    int32_t max_ends, most, vocabulary;
};

int64_t inkling_scratch_floats(const Model *model, int32_t rows, int32_t max_positions, int32_t threads) {
    const int64_t width = model->heads * model->head_dim, narrow = model->key_value_heads * model->head_dim;
    const int64_t each = 2 * model->hidden + 2 * width + 2 * narrow + 2 * model->intermediate;
    return rows * each + static_cast<int64_t>(threads) * (max_positions + kLanes) + 64;
}
}

namespace {

constexpr int kPlacesAhead = 48; // keys and values that are asked for before they are needed
constexpr int kBlock = 64;       // slots of a block of keys and values

// out (R, N) = x (R, K) · matrixᵀ; inside the parallel region. Without the barrier at its end the next one may begin.
inline void multiply(const Matrix &m, const float *x, int rows, float *out) {
    if (fits_tiles(m)) return multiply_tiles(m, x, rows, out);
    if (m.kind == kInt4) return multiply_int4(m, x, rows, out);
    if (kHasPairs && m.kind == kBfloat16 && m.columns % kPairs == 0) return multiply_bfloat16(m, x, rows, out);
    multiply_rows(m, x, rows, out);
}

inline void normalise(const float *x, const float *gain, int width, float epsilon, float *out) {
    Floats squares = {};
    for (int k = 0; k < width; k += kLanes) squares += read(x + k) * read(x + k);
    const float factor = 1.0f / std::sqrt(total(squares) / width + epsilon);
    for (int k = 0; k < width; ++k) out[k] = x[k] * factor * gain[k];
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

// gate * sigmoid(gate) * up, in place of the gate.
inline void gated(float *gate, const float *up) {
    const Floats x = read(gate), small = exponential(x < 0.0f ? x : -x), whole = 1.0f / (1.0f + small);
    const Floats result = x * (x < 0.0f ? small * whole : whole) * read(up);
    std::memcpy(gate, &result, sizeof(result));
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
    const int32_t *blocks = step.blocks_of(r);
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
        if (has_tiles()) begin_tiles();
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
                const int32_t block = step.blocks_of(r)[place / kBlock];
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
            multiply(layer.output, mixed, rows, normed);
#pragma omp barrier
#pragma omp for schedule(static)
            for (int r = 0; r < rows; ++r) {
                float *x = stream + static_cast<int64_t>(r) * hidden, *y = normed + static_cast<int64_t>(r) * hidden;
                for (int k = 0; k < hidden; ++k) x[k] += y[k];
                normalise(x, layer.feed_forward_norm, hidden, model.epsilon, y);
            }
            multiply(layer.gate, normed, rows, gate);
            multiply(layer.up, normed, rows, up);
#pragma omp barrier
#pragma omp for schedule(static)
            for (int64_t i = 0; i < static_cast<int64_t>(rows) * inner; i += kLanes) gated(gate + i, up + i);
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
        for (int i = 0; i < step.num_wanted; ++i) {
            float *x = normed + static_cast<int64_t>(i) * hidden;
            normalise(stream + static_cast<int64_t>(step.wanted[i]) * hidden, model.final_norm, hidden, model.epsilon, x);
        }
        if (step.num_wanted) multiply(model.head, normed, step.num_wanted, step.logits);
        if (has_tiles()) end_tiles();
    }
}

inline void run(const Model &model, const Step &step) {
    if (step.memory_kind == kBfloat16)
        run<uint16_t>(model, step);
    else
        run<float>(model, step);
}

} // namespace

extern "C" void inkling_step(const Model *model, const Step *step) { run(*model, *step); }

// Tokens drawn from logits (R, V), into `written` (R).
extern "C" void inkling_draw(const float *logits, int64_t stride, int32_t rows, const Draws *draws) {
    for (int r = 0; r < rows; ++r)
        draws->written[r] = draw(logits + r * stride, draws->vocabulary, draws->seeds[r], draws->places[r],
                                 draws->temperatures[r]);
}

// Write on until each sequence (a row each) has ended or reached its limit: a step for all that have not, again and again.
extern "C" void inkling_write(const Model *model, const Step *given, const Draws *draws) {
    std::vector<int32_t> open(given->rows), tokens, positions, rows;
    for (int r = 0; r < given->rows; ++r) open[r] = r, draws->counts[r] = 0;
    while (!open.empty()) {
        tokens.clear(), positions.clear(), rows.clear();
        for (const int r : open) {
            const int written = draws->counts[r];
            tokens.push_back(written ? draws->written[r * draws->most + written - 1] : given->tokens[r]);
            positions.push_back(given->positions[r] + written);
            rows.push_back(static_cast<int32_t>(rows.size()));
        }
        Step step = *given;
        step.tokens = tokens.data(), step.positions = positions.data();
        step.owners = open.data(), step.wanted = rows.data();
        step.rows = step.num_wanted = static_cast<int32_t>(open.size());
        run(*model, step);
        std::vector<int32_t> going;
#pragma omp parallel for schedule(static) num_threads(given->threads)
        for (int i = 0; i < step.rows; ++i) {
            const int r = open[i], place = draws->places[r] + draws->counts[r];
            draws->written[r * draws->most + draws->counts[r]++] =
                draw(step.logits + static_cast<int64_t>(i) * model->vocabulary, draws->vocabulary, draws->seeds[r], place,
                     draws->temperatures[r]);
        }
        for (const int r : open) {
            const int token = draws->written[r * draws->most + draws->counts[r] - 1];
            bool ended = token < 0 || draws->counts[r] == draws->limits[r];
            for (int i = 0; i < draws->max_ends; ++i) ended |= token == draws->ends[r * draws->max_ends + i];
            if (!ended) going.push_back(r);
        }
        open.swap(going);
    }
}
