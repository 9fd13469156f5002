// The built-in functions that the kernels of this folder use, for drivers that can do without their own declarations.  Some read the 18,000
// lines of Clang's opencl-c.h for every program, which takes longer than compiling a kernel.
//
// DECLARE_BUILTINS  1: they are declared here, and _OPENCL_H_, the guard of that header, is defined so that it is left out; 0: the compiler knows
//                   them.  Only for drivers that are known to bear it (known_devices.py).
#ifndef DECLARE_BUILTINS
#define DECLARE_BUILTINS 0
#endif

#if DECLARE_BUILTINS
#define BUILTIN __attribute__((overloadable, const))
size_t BUILTIN get_global_id(uint);
size_t BUILTIN get_group_id(uint);
size_t BUILTIN get_local_id(uint);
void __attribute__((overloadable, convergent)) barrier(cl_mem_fence_flags);
int BUILTIN min(int, int);
int BUILTIN max(int, int);

#define FOR_EACH_WIDTH(DECLARE, f) DECLARE(float, f) DECLARE(float2, f) DECLARE(float4, f) DECLARE(float8, f) DECLARE(float16, f)
#define OF_ONE(type, f) type BUILTIN f(type);
#define OF_TWO(type, f) type BUILTIN f(type, type);
#define OF_THREE(type, f) type BUILTIN f(type, type, type);
FOR_EACH_WIDTH(OF_ONE, ceil)
FOR_EACH_WIDTH(OF_ONE, erf)
FOR_EACH_WIDTH(OF_ONE, exp)
FOR_EACH_WIDTH(OF_ONE, expm1)
FOR_EACH_WIDTH(OF_ONE, floor)
FOR_EACH_WIDTH(OF_ONE, log)
FOR_EACH_WIDTH(OF_ONE, log1p)
FOR_EACH_WIDTH(OF_ONE, rint)
FOR_EACH_WIDTH(OF_ONE, sqrt)
FOR_EACH_WIDTH(OF_ONE, tanh)
FOR_EACH_WIDTH(OF_TWO, copysign)
FOR_EACH_WIDTH(OF_TWO, pow)
FOR_EACH_WIDTH(OF_THREE, fma)
FOR_EACH_WIDTH(OF_THREE, mad)
#endif
