/* The vectors of NEON, which every 64-bit ARM processor has: those of plain C, whose registers they are, with fused
 * multiply-add; and the products of int8 by sdot where they are compiled for it. What each function does: common/set.h. */
#define EMBEDKIT_NEON 1
#include "../generic/simd.h"
