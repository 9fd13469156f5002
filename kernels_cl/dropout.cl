// Dropout with the counter-based generator Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3).
//
//   y[i] = keep(i) ? x[i] * scale : 0      scale = 1/(1-p)      keep(i): (word >> 8) * 2^-24 >= p
//   word i%4 of Philox(key = (seed, stream), counter = (i/4, step, 0, 0)), i the flat index: integers only, the same bits on every device.
//
//   i      0 1 2 3 | 4 5 6 7 | ...     work-item g: the counters [g*span, (g+1)*span), VEC of them side by side
//   word   0 1 2 3 | 0 1 2 3
//         counter 0  counter 1
//
// rng is int32 [2] = (seed, step), read on the device so that a step's number need not be bound anew.
// threshold is the smallest kept (word >> 8), computed by the host: ceil(p * 2^24).
#include "vectors.cl"
#if VEC == 1
typedef uint words;
#else
typedef JOIN(uint, VEC) words;
#endif
typedef struct __attribute__((packed, aligned(4))) { words lanes; } words_in_memory;

// The upper 32 bits of a * b, by halves: mul_hi and 64-bit vectors are slow or wrong calls on some runtimes.
inline words multiply_high(const words a, const uint b) {
    const words low = a & (words)(0xFFFFu), high = a >> (words)(16u);
    const uint b_low = b & 0xFFFFu, b_high = b >> 16;
    const words first = high * b_low + (low * b_low >> (words)(16u));
    const words second = low * b_high + (first & (words)(0xFFFFu));
    return high * b_high + (first >> (words)(16u)) + (second >> (words)(16u));
}

__kernel void dropout(
    __global const float *x, const int x_offset,
    __global const int *rng, const int rng_offset,
    __global float *y, const int y_offset,
    const int count, const int stream, const int threshold, const int span, const float scale)
{
    const uint seed = (uint)rng[rng_offset], step = (uint)rng[rng_offset + 1];
    const int first = get_global_id(0) * span;
    const int last = min(first + span, (count + 3) / 4);
    x += x_offset;
    y += y_offset;
    uint lane_numbers[VEC];
    for (int lane = 0; lane < VEC; ++lane)
        lane_numbers[lane] = lane;
    const words lane_number = ((__private const words_in_memory *)lane_numbers)->lanes;

    for (int counter = first; counter < last; counter += VEC) {
        words word0 = lane_number + (words)((uint)counter), word1 = (words)(step), word2 = (words)(0u), word3 = (words)(0u);
        uint key0 = seed, key1 = (uint)stream;
        for (int round = 0; round < 10; ++round) {
            const words high0 = multiply_high(word0, 0xD2511F53u), low0 = word0 * 0xD2511F53u;
            const words high1 = multiply_high(word2, 0xCD9E8D57u), low1 = word2 * 0xCD9E8D57u;
            word0 = high1 ^ word1 ^ (words)(key0);
            word1 = low1;
            word2 = high0 ^ word3 ^ (words)(key1);
            word3 = low0;
            key0 += 0x9E3779B9u;
            key1 += 0xBB67AE85u;
        }
        uint kept[4][VEC];          // words by number, then counter: the other way round than the elements
        ((__private words_in_memory *)kept[0])->lanes = word0 >> (words)(8u);
        ((__private words_in_memory *)kept[1])->lanes = word1 >> (words)(8u);
        ((__private words_in_memory *)kept[2])->lanes = word2 >> (words)(8u);
        ((__private words_in_memory *)kept[3])->lanes = word3 >> (words)(8u);
        const int counters = min(VEC, last - counter);
        for (int lane = 0; lane < counters; ++lane) {
            const int place = 4 * (counter + lane);
            if (place + 4 <= count) {
                const int4 keep = (uint4)(kept[0][lane], kept[1][lane], kept[2][lane], kept[3][lane]) >= (uint4)((uint)threshold);
                store_quad(keep ? load_quad(x + place) * scale : (float4)(0.0f), y + place);
            } else {
                for (int word = 0; place + word < count; ++word)
                    y[place + word] = kept[word][lane] >= (uint)threshold ? x[place + word] * scale : 0.0f;
            }
        }
    }
}
