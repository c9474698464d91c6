// Sixteen numbers at once, and what is computed with them.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

typedef float Floats __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef int8_t Bytes __attribute__((vector_size(16)));

constexpr int kLanes = 16;

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
inline float total(const Floats &lanes) { return _mm512_reduce_add_ps((__m512)lanes); }
#else
inline Floats read(const int8_t *from) { return __builtin_convertvector(load<Bytes>(from), Floats); }
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
