// Dropout with the counter-based generator Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3).
//
//   y[i] = keep(i) ? x[i] * scale : 0      scale = 1/(1-p)      keep(i): (word >> 8) * 2^-24 >= p
//   word i%4 of Philox(key = (seed, stream), counter = (i/4, step, 0, 0)), i the flat index: integers only, the same bits on every device.
//
//   i      0 1 2 3 | 4 5 6 7 | ...     work-item g: the counters [g*span, (g+1)*span)
//   word   0 1 2 3 | 0 1 2 3
//         counter 0  counter 1
//
// rng is int32 [2] = (seed, step), read on the device so that a step's number need not be bound anew.
// threshold is the smallest kept (word >> 8), computed by the host: ceil(p * 2^24).
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
    for (int counter = first; counter < last; ++counter) {
        uint4 word = (uint4)((uint)counter, step, 0u, 0u);
        uint key0 = seed, key1 = (uint)stream;
        for (int round = 0; round < 10; ++round) {
            const ulong product0 = 0xD2511F53ul * word.s0, product1 = 0xCD9E8D57ul * word.s2;
            word = (uint4)((uint)(product1 >> 32) ^ word.s1 ^ key0, (uint)product1, (uint)(product0 >> 32) ^ word.s3 ^ key1, (uint)product0);
            key0 += 0x9E3779B9u;
            key1 += 0xBB67AE85u;
        }
        const int4 kept = (word >> 8) >= (uint4)((uint)threshold);
        const int place = 4 * counter;
        if (place + 4 <= count) {
            vstore4(kept ? vload4(0, x + place) * scale : (float4)(0.0f), 0, y + place);
        } else {
            const int keep[4] = {kept.s0, kept.s1, kept.s2, kept.s3};
            for (int lane = 0; place + lane < count; ++lane)
                y[place + lane] = keep[lane] ? x[place + lane] * scale : 0.0f;
        }
    }
}
