// A register block, shared by all products: the sums of some rows by NV vectors of VEC columns.
//
//             NV vectors of VEC columns           One step: vector0, vector1, ... are loaded, a scalar for each row is broadcast, and
//            +-----------+-----------+            each row's sums grow by scalar times vectors.
//   row 0    |  sum0_0   |  sum0_1   |
//   row 1    |  sum1_0   |  sum1_1   |   named registers, see EACH in vectors.cl
//    ...     +-----------+-----------+
//
// NV  vectors of a row; 1..3.  Rows*NV sums + NV vectors + 1 must fit the register file (32 with AVX-512 and Arm, 16 with AVX2), and at least
//     8..10 sums are needed to hide the latency of a multiply-add.
#ifndef NV
#define NV 2
#endif

#if NV == 1
#define EACH_VECTOR(F, m) F(m, 0)
#elif NV == 2
#define EACH_VECTOR(F, m) F(m, 0) F(m, 1)
#else
#define EACH_VECTOR(F, m) F(m, 0) F(m, 1) F(m, 2)
#endif

#define DECLARE_SUM(m, v) real sum##m##_##v = (real)(0.0f);
#define DECLARE_SUMS(m) EACH_VECTOR(DECLARE_SUM, m)
#define ADD_PRODUCT(m, v) sum##m##_##v = multiply_add(scalar##m, vector##v, sum##m##_##v);
#define ADD_TIMES(m, value) { const real scalar##m = (real)(value); EACH_VECTOR(ADD_PRODUCT, m) }

// Sums in parts: rounding errors grow with the number of products in a part, not with all.  After each part ADD_UP, at the end TAKE_TOTALS.
#define DECLARE_TOTAL(m, v) real total##m##_##v = (real)(0.0f);
#define DECLARE_TOTALS(m) EACH_VECTOR(DECLARE_TOTAL, m)
#define ADD_TO_TOTAL(m, v) total##m##_##v += sum##m##_##v; sum##m##_##v = (real)(0.0f);
#define ADD_UP(m) EACH_VECTOR(ADD_TO_TOTAL, m)
#define TAKE_TOTAL(m, v) sum##m##_##v = total##m##_##v;
#define TAKE_TOTALS(m) EACH_VECTOR(TAKE_TOTAL, m)
