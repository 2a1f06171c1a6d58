"""Kernels in C, without torch: the forward pass in fp32, bf16 and int8 on packed tokens, and search among stored vectors."""
