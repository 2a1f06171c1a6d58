/* What is done to one token's row between the products: embedding, layer norm, rounding to bytes. */
#ifndef EMBEDKIT_ROWS_H
#define EMBEDKIT_ROWS_H

#include "native.h"

/* GELU is nowhere below -0.17; see gemm_int8.c for what the shift is for. */
#define SHIFT 0.171f

/* Norm a row in place: (x - mean) / sqrt(variance + eps) * weight + bias. */
void norm_row(float *row, int64_t size, const float *weight, const float *bias, double eps);

/* Write a + b + c; c may be NULL. */
void sum_rows(float *to, const float *a, const float *b, const float *c, int64_t size);

void row_to_bf16(uint16_t *to, const float *row, int64_t size);

/* Round a row to bytes and return their unit: centred, of floats or of bf16, and shifted, of bf16.
 * `peaks` are the bits of the largest magnitudes in each of sixteen lanes. */
struct unit row_to_bytes(uint8_t *to, const float *row, int64_t size);
struct unit bf16_to_bytes(uint8_t *to, const uint16_t *row, int64_t size);
struct unit bf16_to_shifted_bytes(uint8_t *to, const uint16_t *row, int64_t size, const int32_t *peaks);

#endif
