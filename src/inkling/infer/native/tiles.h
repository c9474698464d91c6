// Products in AMX tiles: sixteen rows of weights with sixteen inputs at once, of bf16 weights and of int8 ones.
//
// An instruction adds to a tile of 16 x 16 sums the products of 64 bytes of each row. A tile of weights is read where it
// lies; the inputs are laid out once, four bytes of each beside each other. Missing inputs are zeros, so each sum is made
// in the same way whatever the number of inputs.
//
// For int8 weights, inputs are whole numbers of 15 bits times a factor of their own: finer than bf16 where they are
// large. Their upper and lower bits are multiplied apart, so that all sums are exact.

#pragma once

#include "products.h"

#if defined(__AMX_BF16__) && defined(__AMX_INT8__) && defined(__AVX512BF16__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>

namespace {

constexpr int kSide = 16;       // of a tile of sums
constexpr int kLine = 64;       // bytes of a row of a tile
constexpr int kTileBytes = 1024;

// Linux gives tiles to those who ask.
inline bool has_tiles() {
    constexpr int kAskForPermission = 0x1023, kTileData = 18; // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    static const bool allowed = syscall(SYS_arch_prctl, kAskForPermission, kTileData) == 0;
    return allowed;
}

// Each thread begins with this, and ends with the opposite.
inline void begin_tiles() {
    struct {
        uint8_t palette = 1, start = 0, reserved[14] = {};
        uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
        uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } const shape;
    _tile_loadconfig(&shape);
}

inline void end_tiles() { _tile_release(); }

// Rows to columns, by halves, quarters and so on.
inline void transpose(__m512i *rows) {
    const __m512i own = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int step = 1; step < kSide; step *= 2) {
        const __mmask16 odd = step == 1 ? 0xAAAA : step == 2 ? 0xCCCC : step == 4 ? 0xF0F0 : 0xFF00;
        const __m512i places = _mm512_set1_epi32(step), theirs = _mm512_set1_epi32(kSide);
        const __m512i first = _mm512_mask_add_epi32(own, odd, _mm512_sub_epi32(own, places), theirs);
        const __m512i second = _mm512_mask_add_epi32(_mm512_add_epi32(own, places), odd, own, theirs);
        for (int i = 0; i < kSide; ++i) {
            if (i & step) continue;
            const __m512i a = rows[i], b = rows[i + step];
            rows[i] = _mm512_permutex2var_epi32(a, first, b);
            rows[i + step] = _mm512_permutex2var_epi32(a, second, b);
        }
    }
}

// Memory that begins at a line of the cache.
inline char *aligned(std::vector<char> &kept, int64_t bytes) {
    kept.resize(bytes + kLine);
    return kept.data() + (kLine - reinterpret_cast<uintptr_t>(kept.data()) % kLine) % kLine;
}

// Rows of bytes (R, width) as tiles (R / 16, width / 64) of (16 times four bytes, 16 rows).
template <typename Row> inline void lay_out(const Row &row, int rows, int64_t width, char *to) {
    for (int first = 0; first < rows; first += kSide)
        for (int64_t at = 0; at < width; at += kLine, to += kTileBytes) {
            __m512i lines[kSide];
            for (int i = 0; i < kSide; ++i) lines[i] = first + i < rows ? row(first + i, at) : _mm512_setzero_si512();
            transpose(lines);
            for (int i = 0; i < kSide; ++i) _mm512_store_si512(to + i * kLine, lines[i]);
        }
}

// Sums of sixteen outputs, (16 outputs, 16 inputs), to the outputs of `rows` inputs; `scales` of these, or null.
inline void store(const __m512 *sums, const Matrix &m, int n, int first, int rows, const float *scales, float *out) {
    __m512i lines[kSide];
    std::memcpy(lines, sums, sizeof(lines));
    transpose(lines);
    Floats scale = {}, bias = {};
    if (scales) scale = widen(m.scales + n);
    if (m.bias) bias = read(m.bias + n);
    for (int i = 0; i < kSide && first + i < rows; ++i) {
        Floats values = (Floats)lines[i];
        if (scales) values *= scale * scales[first + i];
        if (m.bias) values += bias;
        std::memcpy(out + static_cast<int64_t>(first + i) * m.rows + n, &values, sizeof(values));
    }
}

// Asks for what is read after `bytes` of weights, a part with each of `steps`.
inline void ask_ahead(const char *weights, int64_t bytes, int step, int steps) {
    const int64_t part = (bytes / steps + kLine - 1) / kLine * kLine;
    for (int64_t byte = 0; byte < part; byte += kLine) _mm_prefetch(weights + bytes + step * part + byte, _MM_HINT_T1);
}

// Two times sixteen rows of bf16 weights, from row n on, with all inputs.
inline void bfloat16_tiles(const Matrix &m, int n, const char *inputs, int rows, float *out) {
    const int64_t stride = m.columns * static_cast<int64_t>(sizeof(uint16_t)), panel = stride * kSide;
    const char *weights = static_cast<const char *>(m.data) + n * stride;
    const int steps = static_cast<int>(stride / kLine);
    for (int first = 0; first < rows; first += 2 * kSide) {
        const char *x = inputs + first * stride;
        const bool both = first + kSide < rows;
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int step = 0; step < steps; ++step) {
            if (first == 0) ask_ahead(weights, 2 * panel, step, steps);
            _tile_loadd(4, weights + step * kLine, stride);
            _tile_loadd(6, x + step * kTileBytes, kLine);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(5, weights + panel + step * kLine, stride);
            _tile_dpbf16ps(1, 5, 6);
            if (!both) continue;
            _tile_loadd(7, x + panel + step * kTileBytes, kLine);
            _tile_dpbf16ps(2, 4, 7);
            _tile_dpbf16ps(3, 5, 7);
        }
        __m512 sums[4][kSide];
        _tile_stored(0, sums[0], kLine);
        _tile_stored(1, sums[1], kLine);
        _tile_stored(2, sums[2], kLine);
        _tile_stored(3, sums[3], kLine);
        for (int part = 0; part < (both ? 4 : 2); ++part)
            store(sums[part], m, n + part % 2 * kSide, first + part / 2 * kSide, rows, nullptr, out);
    }
}

inline const char *bfloat16_inputs(const float *x, int rows, int width) {
    thread_local std::vector<char> kept;
    char *tiles = aligned(kept, (rows + kSide - 1) / kSide * kSide * static_cast<int64_t>(width) * sizeof(uint16_t));
    const auto row = [&](int r, int64_t at) {
        const float *from = x + static_cast<int64_t>(r) * width + at / sizeof(uint16_t);
        return (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + kLanes), _mm512_loadu_ps(from));
    };
    lay_out(row, rows, width * sizeof(uint16_t), tiles);
    return tiles;
}

// Inputs as whole numbers: tiles of their upper bits, of their lower seven bits, and factors.
struct WholeInputs {
    const char *upper, *lower;
    const float *scales;
};

inline WholeInputs whole_inputs(const float *x, int rows, int width) {
    constexpr float kMost = 127 * 128; // upper bits are then a signed byte, lower ones -64 to 63
    thread_local std::vector<char> kept[2];
    thread_local std::vector<float> scales;
    thread_local std::vector<int8_t> bytes;
    scales.resize(rows);
    bytes.resize(2 * static_cast<size_t>(rows) * width);
    int8_t *parts[2] = {bytes.data(), bytes.data() + static_cast<int64_t>(rows) * width};
    for (int r = 0; r < rows; ++r) {
        const float *input = x + static_cast<int64_t>(r) * width;
        __m512 most = _mm512_setzero_ps(), bad = most;
        for (int k = 0; k < width; k += kLanes) {
            const __m512 values = _mm512_loadu_ps(input + k);
            most = _mm512_max_ps(most, _mm512_abs_ps(values));
            bad = _mm512_fmadd_ps(values, _mm512_setzero_ps(), bad); // not a number where one of them is none
        }
        const float largest = _mm512_reduce_max_ps(most);
        const __m512 factor = _mm512_set1_ps(largest > 0.0f ? kMost / largest : 0.0f);
        scales[r] = largest / kMost + total((Floats)bad);
        for (int k = 0; k < width; k += kLanes) {
            const __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(input + k), factor));
            const __m512i upper = _mm512_srai_epi32(_mm512_add_epi32(whole, _mm512_set1_epi32(64)), 7);
            const __m128i halves[2] = {_mm512_cvtepi32_epi8(upper),
                                       _mm512_cvtepi32_epi8(_mm512_sub_epi32(whole, _mm512_slli_epi32(upper, 7)))};
            for (int part = 0; part < 2; ++part)
                std::memcpy(parts[part] + static_cast<int64_t>(r) * width + k, &halves[part], sizeof(halves[part]));
        }
    }
    char *tiles[2];
    for (int part = 0; part < 2; ++part) {
        tiles[part] = aligned(kept[part], (rows + kSide - 1) / kSide * kSide * static_cast<int64_t>(width));
        const auto row = [&](int r, int64_t at) { return _mm512_loadu_si512(parts[part] + static_cast<int64_t>(r) * width + at); };
        lay_out(row, rows, width, tiles[part]);
    }
    return {tiles[0], tiles[1], scales.data()};
}

// Two times sixteen rows of int8 weights, from row n on, with all inputs.
inline void int8_tiles(const Matrix &m, int n, const WholeInputs &inputs, int rows, float *out) {
    const int64_t stride = m.columns, panel = stride * kSide;
    const char *weights = static_cast<const char *>(m.data) + n * stride;
    const int steps = static_cast<int>(stride / kLine);
    for (int first = 0; first < rows; first += kSide) {
        const char *upper = inputs.upper + first * stride, *lower = inputs.lower + first * stride;
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int step = 0; step < steps; ++step) {
            if (first == 0) ask_ahead(weights, 2 * panel, step, steps);
            _tile_loadd(4, weights + step * kLine, stride);
            _tile_loadd(5, weights + panel + step * kLine, stride);
            _tile_loadd(6, upper + step * kTileBytes, kLine);
            _tile_loadd(7, lower + step * kTileBytes, kLine);
            _tile_dpbssd(0, 4, 6);
            _tile_dpbssd(1, 5, 6);
            _tile_dpbssd(2, 4, 7);
            _tile_dpbssd(3, 5, 7);
        }
        __m512i sums[4][kSide];
        _tile_stored(0, sums[0], kLine);
        _tile_stored(1, sums[1], kLine);
        _tile_stored(2, sums[2], kLine);
        _tile_stored(3, sums[3], kLine);
        for (int part = 0; part < 2; ++part) {
            __m512 both[kSide];
            for (int i = 0; i < kSide; ++i)
                both[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[part][i]), _mm512_set1_ps(128.0f),
                                          _mm512_cvtepi32_ps(sums[part + 2][i]));
            store(both, m, n + part * kSide, first, rows, inputs.scales, out);
        }
    }
}

inline bool fits_tiles(const Matrix &m) {
    const int bytes = m.kind == kBfloat16 ? 2 : 1;
    const bool known = m.kind == kBfloat16 || m.kind == kInt8;
    return known && m.columns * bytes % kLine == 0 && m.rows >= 2 * kSide && has_tiles();
}

inline void multiply_tiles(const Matrix &m, const float *x, int rows, float *out) {
    constexpr int wide = 2 * kSide;
    const bool is_whole = m.kind == kInt8;
    const WholeInputs whole = is_whole ? whole_inputs(x, rows, m.columns) : WholeInputs{};
    const char *inputs = is_whole ? nullptr : bfloat16_inputs(x, rows, m.columns);
#pragma omp for schedule(static) nowait
    for (int start = 0; start < m.rows; start += wide) {
        const int n = start + wide <= m.rows ? start : m.rows - wide; // the last ones may be computed twice
        if (is_whole)
            int8_tiles(m, n, whole, rows, out);
        else
            bfloat16_tiles(m, n, inputs, rows, out);
    }
}

} // namespace
#else
namespace {
inline void begin_tiles() {}
inline void end_tiles() {}
inline bool has_tiles() { return false; }
inline bool fits_tiles(const Matrix &) { return false; }
inline void multiply_tiles(const Matrix &, const float *, int, float *) {}
} // namespace
#endif
