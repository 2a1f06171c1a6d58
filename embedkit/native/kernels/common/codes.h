/* What passes between the products of int8: bf16 where the processor rounds to it by itself, else floats. */
#ifndef EMBEDKIT_CODES_H
#define EMBEDKIT_CODES_H

#include "set.h"

#ifdef WITH_BF16
typedef uint16_t inner_t;
INLINE vec load_inner(const inner_t *from) { return v_load_bf16(from); }
INLINE void store_inner(inner_t *to, const vec x[PANEL_VECTORS]) { store_bf16(to, x); }
#else
typedef float inner_t;
INLINE vec load_inner(const inner_t *from) { return v_load(from); }
INLINE void store_inner(inner_t *to, const vec x[PANEL_VECTORS]) { store_floats(to, x); }
#endif

#endif
