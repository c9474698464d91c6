// Products of packed matrices with a few inputs, in vector registers.
//
// Each sum runs in an order that depends on the shape of the matrix alone, so the result for an input does not depend on
// how many others there are, nor on the number of threads. Letters: R inputs, N outputs, K numbers of an input.

#pragma once

#include <type_traits>
#include <vector>

#include "vectors.h"

enum Kind { kFloat32 = 0, kBfloat16 = 1, kInt8 = 2, kInt4 = 3 };

extern "C" struct Matrix {
    // fp32, bf16 and int8: (N, K). int4: (N / 16, K / 8, 16, 2) words of 16 bits, of a row in each lane: the codes of
    // columns 0, 2, 4 and 6, lowest bits first, then those of 1, 3, 5 and 7.
    const void *data;
    const uint16_t *scales; // int8: (N); int4: (N / 16, K / group, 2, 16), scales, then zeros
    const float *bias;      // (N), or null
    int32_t kind, rows, columns, group;
};

namespace {

constexpr int kTile = 4;     // inputs that share one reading of a weight
constexpr int kSums = 2;     // partial sums of a product, so that additions need not wait for each other
constexpr int kAhead = 1024; // bytes that are asked for before they are needed
constexpr int kPairs = 32;   // bf16 numbers of a register, which are multiplied and added in pairs

// Products of `wide` rows of weights with `count` inputs, (count, wide).
template <int wide, int count, typename T>
inline void products(const T *weights, int64_t width, const float *x, float *results) {
    Floats sums[wide][count][kSums] = {};
    const auto add = [&](int64_t place, int part) {
        Floats w[wide];
        for (int n = 0; n < wide; ++n) w[n] = read(weights + n * width + place);
        for (int r = 0; r < count; ++r) {
            const Floats input = read(x + r * width + place);
            for (int n = 0; n < wide; ++n) sums[n][r][part] += w[n] * input;
        }
    };
    int64_t k = 0;
    for (; k + kSums * kLanes <= width; k += kSums * kLanes) {
        for (int n = 0; n < wide; ++n)
            for (size_t byte = 0; byte < kSums * kLanes * sizeof(T); byte += 64)
                __builtin_prefetch(reinterpret_cast<const char *>(weights + n * width + k) + kAhead + byte);
        for (int part = 0; part < kSums; ++part) add(k + part * kLanes, part);
    }
    for (; k < width; k += kLanes) add(k, 0);
    for (int r = 0; r < count; ++r)
        for (int n = 0; n < wide; ++n) results[r * wide + n] = total(sums[n][r][0] + sums[n][r][1]);
}

// `wide` rows of weights, from row n on, with all inputs.
template <int wide, typename T>
inline void rows_products(const Matrix &m, int n, const T *weights, const float *x, int rows, float *out) {
    const auto some = [&](int r, auto count) {
        float results[decltype(count)::value * wide];
        products<wide, decltype(count)::value>(weights, m.columns, x + static_cast<int64_t>(r) * m.columns, results);
        for (int i = 0; i < decltype(count)::value * wide; ++i) {
            const int own = n + i % wide;
            const float scale = m.kind == kInt8 ? from_bfloat16(m.scales[own]) : 1.0f, bias = m.bias ? m.bias[own] : 0.0f;
            out[static_cast<int64_t>(r + i / wide) * m.rows + own] = results[i] * scale + bias;
        }
    };
    int r = 0;
    for (; r + kTile <= rows; r += kTile) some(r, std::integral_constant<int, kTile>{});
    for (; r < rows; ++r) some(r, std::integral_constant<int, 1>{});
}

// For many inputs, numbers are converted once for all.
template <typename T> inline void multiply_rows_of(const Matrix &m, const float *x, int rows, float *out) {
    const int wide = rows >= kTile && m.rows % 2 == 0 ? 2 : 1; // two rows share each reading of an input
#pragma omp for schedule(static) nowait
    for (int n = 0; n < m.rows; n += wide) {
        const T *weights = static_cast<const T *>(m.data) + static_cast<int64_t>(n) * m.columns;
        if (wide == 1) {
            rows_products<1>(m, n, weights, x, rows, out);
        } else if (std::is_same<T, float>::value || rows < 4 * kTile) {
            rows_products<2>(m, n, weights, x, rows, out);
        } else {
            thread_local std::vector<float> kept;
            kept.resize(2 * static_cast<size_t>(m.columns));
            for (int k = 0; k < 2 * m.columns; k += kLanes) {
                const Floats values = read(weights + k);
                std::memcpy(kept.data() + k, &values, sizeof(values));
            }
            rows_products<2>(m, n, kept.data(), x, rows, out);
        }
    }
}

inline void multiply_rows(const Matrix &m, const float *x, int rows, float *out) {
    switch (m.kind) {
    case kFloat32: return multiply_rows_of<float>(m, x, rows, out);
    case kBfloat16: return multiply_rows_of<uint16_t>(m, x, rows, out);
    default: return multiply_rows_of<int8_t>(m, x, rows, out);
    }
}

// ---------------------------------------------------------------- bf16 in pairs

#ifdef __AVX512BF16__
constexpr bool kHasPairs = true;

// Inputs rounded to bf16, as torch does too.
inline void narrow(const float *x, int64_t count, uint16_t *out) {
    for (int64_t i = 0; i < count; i += kLanes) {
        const __m256bh halves = _mm512_cvtneps_pbh(_mm512_loadu_ps(x + i));
        std::memcpy(out + i, &halves, sizeof(halves));
    }
}

inline const uint16_t *narrowed(const float *x, int64_t count) {
    thread_local std::vector<uint16_t> kept;
    kept.resize(count);
    narrow(x, count, kept.data());
    return kept.data();
}

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

inline void multiply_bfloat16(const Matrix &m, const float *x, int rows, float *out) {
    const uint16_t *inputs = narrowed(x, static_cast<int64_t>(rows) * m.columns);
    const uint16_t *weights = static_cast<const uint16_t *>(m.data);
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
#else
constexpr bool kHasPairs = false;
inline void multiply_bfloat16(const Matrix &m, const float *x, int rows, float *out) { multiply_rows(m, x, rows, out); }
#endif

// ---------------------------------------------------------------- 4 bits

constexpr int kColumns = 8; // of sixteen rows of codes in a register

// Sums of a group of columns, for sixteen rows of weights and an input.
#if defined(__AVX512BF16__) && defined(__AVX512BW__)
typedef uint16_t Input;

// A code is looked up by the low bits of each word; a fifth bit is the next code's, and changes nothing.
template <int count>
inline void group_products(const uint16_t *codes, int columns, const Input *x, int64_t width, Floats *sums) {
    const __m256i once = _mm256_setr_epi16( // -8 to 7 in bf16
        static_cast<int16_t>(0xC100), static_cast<int16_t>(0xC0E0), static_cast<int16_t>(0xC0C0),
        static_cast<int16_t>(0xC0A0), static_cast<int16_t>(0xC080), static_cast<int16_t>(0xC040),
        static_cast<int16_t>(0xC000), static_cast<int16_t>(0xBF80), 0, 0x3F80, 0x4000, 0x4040, 0x4080, 0x40A0, 0x40C0,
        0x40E0);
    const __m512i values = _mm512_broadcast_i64x4(once);
    __m512 parts[count][4] = {};
    for (int k = 0; k < columns; k += kColumns) {
        const __m512i words = _mm512_loadu_si512(codes + 4 * k);
        _mm_prefetch(reinterpret_cast<const char *>(codes + 4 * k) + 2 * kAhead, _MM_HINT_T0);
        const __m512bh w[4] = {(__m512bh)_mm512_permutexvar_epi16(words, values),
                               (__m512bh)_mm512_permutexvar_epi16(_mm512_srli_epi16(words, 4), values),
                               (__m512bh)_mm512_permutexvar_epi16(_mm512_srli_epi16(words, 8), values),
                               (__m512bh)_mm512_permutexvar_epi16(_mm512_srli_epi16(words, 12), values)};
        for (int r = 0; r < count; ++r)
            for (int pair = 0; pair < 4; ++pair) {
                const __m512i input = _mm512_set1_epi32(load<int32_t>(x + r * width + k + 2 * pair));
                parts[r][pair] = _mm512_dpbf16_ps(parts[r][pair], w[pair], (__m512bh)input);
            }
    }
    for (int r = 0; r < count; ++r)
        sums[r] = (Floats)_mm512_add_ps(_mm512_add_ps(parts[r][0], parts[r][1]), _mm512_add_ps(parts[r][2], parts[r][3]));
}
#else
typedef float Input;

template <int count>
inline void group_products(const uint16_t *codes, int columns, const Input *x, int64_t width, Floats *sums) {
    Floats parts[count][4] = {};
    for (int k = 0; k < columns; k += kColumns) {
        const Words words = load<Words>(codes + 4 * k);
        for (int pair = 0; pair < 4; ++pair) {
            const Floats even = __builtin_convertvector((words >> (4 * pair)) & 15u, Floats) - 8.0f;
            const Floats odd = __builtin_convertvector((words >> (16 + 4 * pair)) & 15u, Floats) - 8.0f;
            for (int r = 0; r < count; ++r) {
                const Input *input = x + r * width + k + 2 * pair;
                parts[r][pair] += even * input[0] + odd * input[1];
            }
        }
    }
    for (int r = 0; r < count; ++r) sums[r] = (parts[r][0] + parts[r][1]) + (parts[r][2] + parts[r][3]);
}
#endif

// Sixteen rows of weights with `count` inputs. A weight is (code - 8) * scale + zero of its group, so zeros are
// multiplied with the sums of the groups' inputs, `group_sums`, which all rows of weights share.
template <int count>
inline void int4_products(const Matrix &m, int n, const Input *x, const float *group_sums, float *out) {
    const int num_groups = m.columns / m.group;
    const uint16_t *codes = static_cast<const uint16_t *>(m.data) + static_cast<int64_t>(n) * m.columns / 4;
    const uint16_t *scales = m.scales + static_cast<int64_t>(n) * 2 * num_groups;
    Floats sums[count] = {};
    for (int g = 0; g < num_groups; ++g) {
        Floats of_group[count];
        group_products<count>(codes + static_cast<int64_t>(g) * m.group * 4, m.group, x + g * m.group, m.columns, of_group);
        const Floats scale = widen(scales + g * 2 * kLanes), zero = widen(scales + g * 2 * kLanes + kLanes);
        for (int r = 0; r < count; ++r) {
            sums[r] += of_group[r] * scale;
            sums[r] += zero * group_sums[r * num_groups + g];
        }
    }
    for (int r = 0; r < count; ++r) {
        if (m.bias) sums[r] += read(m.bias + n);
        std::memcpy(out + static_cast<int64_t>(r) * m.rows + n, &sums[r], sizeof(Floats));
    }
}

inline void multiply_int4(const Matrix &m, const float *x, int rows, float *out) {
    thread_local std::vector<float> group_sums;
    const int num_groups = m.columns / m.group;
    group_sums.resize(static_cast<size_t>(rows) * num_groups);
    for (int i = 0; i < rows * num_groups; ++i) {
        Floats sum = {};
        for (int k = 0; k < m.group; k += kLanes) sum += read(x + static_cast<int64_t>(i) * m.group + k);
        group_sums[i] = total(sum);
    }
#if defined(__AVX512BF16__) && defined(__AVX512BW__)
    const Input *inputs = narrowed(x, static_cast<int64_t>(rows) * m.columns);
#else
    const Input *inputs = x;
#endif
#pragma omp for schedule(static) nowait
    for (int n = 0; n < m.rows; n += kLanes) {
        int r = 0;
        const auto some = [&](auto count) {
            int4_products<decltype(count)::value>(m, n, inputs + static_cast<int64_t>(r) * m.columns,
                                                  group_sums.data() + r * num_groups, out + static_cast<int64_t>(r) * m.rows);
            r += decltype(count)::value;
        };
        while (r + kTile <= rows) some(std::integral_constant<int, kTile>{});
        while (r < rows) some(std::integral_constant<int, 1>{});
    }
}

} // namespace
