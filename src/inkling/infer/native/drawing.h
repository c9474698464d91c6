// The next token, drawn as a race between all of them: see inkling/infer/sampling.py, of which this is the plain case.

#pragma once

#include "vectors.h"

namespace {

typedef uint64_t Longs __attribute__((vector_size(64)));
typedef uint32_t EightWords __attribute__((vector_size(32)));

constexpr uint64_t kGolden = 0x9E3779B97F4A7C15, kFirst = 0xBF58476D1CE4E5B9, kSecond = 0x94D049BB133111EB;
constexpr float kLeastTemperature = 1e-6f;

// SplitMix64's next output from a state (Steele, Lea and Flood, 2014).
template <typename T> inline T finished(T bits) {
    bits = (bits ^ (bits >> 30)) * kFirst;
    bits = (bits ^ (bits >> 27)) * kSecond;
    return bits ^ (bits >> 31);
}

// The first of the largest logits (V), or -1 where one is not a number or none is finite.
inline int likeliest(const float *logits, int count) {
    Floats highest = Floats{} - INFINITY;
    Words unknown = {};
    int i = 0;
    for (; i + kLanes <= count; i += kLanes) {
        const Floats part = read(logits + i);
        unknown |= (Words)(part != part);
        highest = part > highest ? part : highest;
    }
    float largest = -INFINITY;
    bool known = true;
    for (int lane = 0; lane < kLanes; ++lane) {
        known &= unknown[lane] == 0;
        if (highest[lane] > largest) largest = highest[lane];
    }
    for (; i < count; ++i) {
        known &= logits[i] == logits[i];
        if (logits[i] > largest) largest = logits[i];
    }
    if (!known || !std::isfinite(largest)) return -1;
    i = 0;
    while (logits[i] != largest) ++i;
    return i;
}

inline bool any(const Words &lanes) {
    const Words none = {};
    return std::memcmp(&lanes, &none, sizeof(none)) != 0;
}

// The token that is drawn at a place of a text: each token's time is exponential with its probability as the rate.
inline int draw(const float *logits, int count, uint64_t seed, uint64_t place, float temperature) {
    const int first = likeliest(logits, count);
    if (first < 0 || temperature < kLeastTemperature) return first;
    const uint64_t key = finished(finished(seed + kGolden) + place + kGolden);
    const float largest = logits[first], sharpness = 1.0f / temperature;
    const Longs lanes = {0, 1, 2, 3, 4, 5, 6, 7};
    Longs counter = key + lanes * kGolden;
    float best = -1.0f;
    int winner = first;
    for (int start = 0; start < count; start += kLanes) {
        float part[kLanes];
        const int size = start + kLanes <= count ? kLanes : count - start;
        for (int i = size; i < kLanes; ++i) part[i] = -INFINITY;
        std::memcpy(part, logits + start, size * sizeof(float));
        const Floats rates = exponential((read(part) - largest) * sharpness);
        Words low;
        for (int half = 0; half < 2; ++half, counter += 8 * kGolden) {
            const EightWords words = __builtin_convertvector(finished(counter), EightWords);
            std::memcpy(reinterpret_cast<char *>(&low) + half * sizeof(words), &words, sizeof(words));
        }
        const Floats uniform = (__builtin_convertvector(low, Floats) + 0.5f) * 0x1p-32f;
        if (!any((Words)(rates > best * uniform))) continue; // a time is never shorter than its uniform number
        for (int i = 0; i < size; ++i) {
            const float speed = rates[i] / -std::log1p(-uniform[i]);
            if (speed > best) best = speed, winner = start + i;
        }
    }
    return winner;
}

} // namespace
